//! The places, one file each. A further adapter is a file here and a line in [`all`].

pub mod bucket;
pub mod fs;
pub mod glacier;
pub mod ipfs;
pub mod nfs;
pub mod s3;
pub mod ton;

use std::path::PathBuf;

use xtask::conformance::COMPONENT;
use xtask::languages::Language;

use crate::place::Entry;

/// Every adapter there is, in whatever language; or the component that the environment names, on the place of `fs`.
pub fn all() -> Vec<Entry> {
    if let Some(path) = std::env::var_os(COMPONENT) {
        return vec![fs::of_component(PathBuf::from(path))];
    }
    let mut all = vec![fs::entry(), s3::entry(), glacier::entry(), ipfs::entry(), nfs::entry(), ton::entry()];
    all.extend(Language::ALL.map(fs::of_language));
    all
}
