//! The target `pages`: see `tidelock_fuzz::pages`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::pages::run);
