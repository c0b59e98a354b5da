//! The target `config`: see `tidelock_fuzz::config`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::config::run);
