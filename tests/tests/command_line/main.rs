//! The built program as a user sees it: arguments, standard streams, exit statuses, and files on disk.
//!
//! One binary with a module per topic, since each test binary links xtask again and may start its own server.

mod at_risk;
mod beside;
mod beside_jobs;
mod chains;
mod components;
mod configuration;
mod damage;
mod deltas;
mod encryption;
mod evidence;
mod glacier;
mod guessed;
mod hot;
mod hot_damage;
mod import;
mod inputs;
mod interop;
mod killed;
mod last_look;
mod listings;
mod looked_through;
mod missing_keys;
mod outages;
mod outputs;
mod packs;
mod places;
mod put_back;
mod readiness;
mod rebuilt;
mod refusals;
mod remade;
mod repair;
mod resources;
mod retired;
mod s3;
mod s3_world;
mod scrubs;
mod sick;
mod snapshots;
mod sound_copies;
mod space;
mod spill;
mod trust;
mod world;
