//! The target `http_reply`: see `tidelock_fuzz::http_reply`.
#![cfg_attr(fuzzing, no_main)]

tidelock_fuzz::program!(tidelock_fuzz::http_reply::run);
