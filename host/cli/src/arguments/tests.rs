//! What the arguments accept, and what they say of the rest.

use clap::CommandFactory;

use super::*;

#[test]
fn the_arguments_make_sense() {
    Arguments::command().debug_assert();
}

#[test]
fn values_are_checked_and_say_what_to_write() {
    let error = |words: &[&str]| Arguments::try_parse_from(words).unwrap_err().to_string();
    assert!(error(&["tidelock", "retrieve", "x", "--range", "7"]).contains("write A..B"));
    assert!(error(&["tidelock", "gc", "--older-than", "7"]).contains("ms, s, m, h or d"));
    assert!(error(&["tidelock", "apply", "x", "y", "--format", "z"]).contains("sparse"));
}

#[test]
fn global_options_go_anywhere() {
    let read = |words: &[&str]| Arguments::try_parse_from(words).unwrap().global;
    assert!(read(&["tidelock", "--json", "ls"]).json);
    assert!(read(&["tidelock", "ls", "--json"]).json);
    assert_eq!(read(&["tidelock", "ls", "-vv"]).verbosity(), 2);
    assert_eq!(read(&["tidelock", "-q", "ls"]).verbosity(), -1);
    assert!(Arguments::try_parse_from(["tidelock", "-q", "-v", "ls"]).is_err());
}
