//! The target `wit_values`: see `tidelock_fuzz::wit_values`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::wit_values::run);
