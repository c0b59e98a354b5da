//! The target `manifest`: see `tidelock_fuzz::manifest`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::manifest::run);
