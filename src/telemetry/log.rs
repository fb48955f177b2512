//! The log: settings, formats, and what each level means here.

/// What the log looks like and how much it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// Levels by target, in the syntax of `tracing_subscriber::filter::Targets`
    /// (`info`, or `info,bearer_proxy=debug`); checked when the configuration is read.
    pub level: String,
    /// Which requests leave a line.
    pub access: AccessLog,
}

/// Lines for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Pretty where stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// One line of text, with colours where allowed.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Which requests leave a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that we refused or failed, and answers of 5xx.
    Errors,
    /// Those, and every request of an unsafe method: each POST leaves a line.
    #[default]
    ErrorsAndUnsafe,
    /// All.
    All,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into(), access: AccessLog::default() }
    }
}
