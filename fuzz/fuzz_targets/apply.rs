//! The target `apply`: see `tidelock_fuzz::apply`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::apply::run);
