//! The verbs a person types; the only place for `anyhow`, stdout and exit codes.
