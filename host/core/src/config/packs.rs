//! The keys of a route that say how images are stored: `encoding` and `profile`.

use super::PackProfile;
use super::read::Item;
use crate::types::{Encoding, Result};

/// What packs are made for.
pub(super) fn profile(item: &Item<'_>) -> Result<PackProfile> {
    match item.text()? {
        "compact" => Ok(PackProfile::Compact),
        "random" => Ok(PackProfile::Random),
        _ => Err(item.wrong("must be \"compact\" or \"random\"")),
    }
}

/// How images are stored.
pub(super) fn encoding(item: &Item<'_>) -> Result<Encoding> {
    match item.text()? {
        "pages" => Ok(Encoding::Pages),
        "raw" => Ok(Encoding::Raw),
        _ => Err(item.wrong("must be \"pages\" or \"raw\"")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn route(lines: &str) -> Result<(Encoding, PackProfile)> {
        let text = format!("[backends.a]\nadapter = 'fs'\n[routes.default]\nbackends = ['a']\n{lines}");
        Config::parse(&text, Path::new("")).map(|config| {
            let route = &config.routes["default"];
            (route.encoding, route.profile)
        })
    }

    #[test]
    fn a_route_says_how_images_are_stored() {
        assert_eq!(route("").unwrap(), (Encoding::Raw, PackProfile::Compact));
        assert_eq!(route("encoding = 'pages'\nprofile = 'random'").unwrap(), (Encoding::Pages, PackProfile::Random));
        assert_eq!(route("encoding = 'raw'\nprofile = 'compact'").unwrap(), (Encoding::Raw, PackProfile::Compact));
        for (wrong, why) in [
            ("encoding = 'zip'", "`routes.default.encoding` must be \"pages\" or \"raw\""),
            ("profile = 'fast'", "`routes.default.profile` must be \"compact\" or \"random\""),
            ("encoding = 1", "must be a string"),
        ] {
            let error = route(wrong).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
