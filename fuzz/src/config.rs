//! Any text as a configuration file: it is refused with a place in it, or it means something that makes sense.

use std::path::Path;

use tidelock::ErrorKind;
use tidelock::capabilities::grant;
use tidelock::config::{Ack, BackendConfig, Config, DEFAULT_ROUTE, Listen};

use crate::one_line;

/// Parses the text and checks what came of it.
pub fn run(data: &[u8]) {
    // The command line refuses a file that is not UTF-8 before it comes here.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let directory = Path::new("/etc/tidelock");
    let config = match Config::parse(text, directory) {
        Ok(config) => config,
        Err(error) => return refused(text, &error),
    };
    let commented = format!("{text}\n# the end\n");
    assert_eq!(Config::parse(&commented, directory).as_ref().ok(), Some(&config), "a comment changed the meaning");
    makes_sense(&config);
}

fn refused(text: &str, error: &tidelock::Error) {
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error:?}");
    one_line::check_error(error, text.len() * 8 + 1024);
    let place = error.message().strip_prefix("line ").and_then(|rest| rest.split_once(", column "));
    let Some((line, rest)) = place else { panic!("no place in `{}`", error.message()) };
    let line: usize = line.parse().expect("the number of a line");
    let column: usize = rest.split(':').next().and_then(|column| column.parse().ok()).expect("the number of a column");
    let shown = text.split('\n').nth(line - 1).expect("a line that is there");
    assert!((1..=shown.chars().count() + 1).contains(&column), "line {line} has no column {column}");
}

fn makes_sense(config: &Config) {
    assert!(config.routes.contains_key(DEFAULT_ROUTE));
    assert!(config.data_dir.is_absolute());
    assert!(!config.backends.is_empty());
    for (name, backend) in &config.backends {
        one_line::check(name, 64);
        backend_makes_sense(backend);
    }
    for route in config.routes.values() {
        assert!(!route.backends.is_empty());
        for (at, name) in route.backends.iter().enumerate() {
            assert!(config.backends.contains_key(name), "a route to nowhere");
            assert!(!route.backends[..at].contains(name), "the same backend twice");
        }
        assert!((1..=route.backends.len()).contains(&(route.copies as usize)));
        assert!(route.ack != Ack::Local || config.hot.is_some(), "an acknowledgement that nothing can give");
    }
    assert!(matches!(config.service.listen, Listen::Unix(_)) || config.service.token_file.is_some());
}

fn backend_makes_sense(backend: &BackendConfig) {
    for http in backend.grants.http.values() {
        // What the configuration takes, the capability takes too: nothing is found out when the first request goes out.
        let grant = grant::HttpGrant::to(http.origins.iter().map(String::as_str)).expect("origins that are origins");
        grant.validate().expect("a grant that makes sense");
    }
    for bucket in backend.grants.bucket.values() {
        assert!(!bucket.bucket.is_empty() && !bucket.bucket.contains('/'));
    }
    let limits = &backend.limits;
    for time in [limits.deadline, limits.idle, limits.cpu].into_iter().flatten() {
        assert!(!time.is_zero());
    }
    assert_ne!(limits.in_flight, Some(0));
    for price in [backend.cost.storage_gb_month, backend.cost.egress_gb].into_iter().flatten() {
        assert!(price.is_finite() && price >= 0.0);
    }
}
