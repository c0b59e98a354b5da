//! The host embedded in this process: behaviour that is not visible from outside.

mod bucket;
mod glacier;
mod hosts;
mod image;
mod ipfs;
mod ipfs_lies;
mod languages;
mod liar;
mod nfs;
mod sandbox;
mod slow;
mod splice;
mod support;
mod swap;
mod swap_crash;
mod swap_folder;
mod swap_restart;
mod swap_stages;
mod swap_trial;
mod swap_verdict;
mod ton;
mod ton_chain;
mod ton_faults;
mod ton_proxy;
mod trust;
mod versions;
