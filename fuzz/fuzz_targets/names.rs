//! The target `names`: see `tidelock_fuzz::names`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::names::run);
