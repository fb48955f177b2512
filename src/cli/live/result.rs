//! One step of a live check, and a part of the configuration with its steps; in words and as JSON.

use std::fmt;
use std::io;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::output::{outln, with_ages};

/// The status of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckStatus {
    Ok,
    /// It works today.
    Warning,
    Failed,
}

impl CheckStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    fn mark(self) -> char {
        match self {
            Self::Ok => '√',
            Self::Warning => '‼',
            Self::Failed => '×',
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckResult {
    pub(super) name: String,
    pub(super) outcome: CheckStatus,
    pub(super) found: String,
    pub(super) hint: Option<String>,
}

// Not inlined: there are many calls, none of which is hot.
impl CheckResult {
    #[inline(never)]
    pub(super) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: CheckStatus::Ok, found: found.into(), hint: None }
    }

    #[inline(never)]
    pub(super) fn failed(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { outcome: CheckStatus::Failed, ..Self::ok(name, found) }
    }

    /// A failure whose message says what was found, a semicolon, and what to do about it, as those
    /// of secrets and files do.
    pub(super) fn from_error(name: impl Into<String>, error: &impl fmt::Display) -> Self {
        let message = error.to_string();
        match message.split_once("; ") {
            Some((found, hint)) => Self::failed(name, found).hint(hint),
            None => Self::failed(name, message),
        }
    }

    pub(super) fn failure(self) -> Self {
        Self { outcome: CheckStatus::Failed, ..self }
    }

    pub(super) fn warning(self) -> Self {
        Self { outcome: CheckStatus::Warning, ..self }
    }

    #[inline(never)]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn has_failed(&self) -> bool {
        self.outcome == CheckStatus::Failed
    }

    fn to_json(&self) -> Value {
        json!({
            "step": self.name,
            "ok": !self.has_failed(),
            "status": self.outcome.word(),
            "found": self.found,
            "hint": self.hint,
        })
    }
}

/// A part of the configuration, and what was found about it.
pub(super) struct CheckGroup {
    /// `instance`, `credential`, `share`, `upstream`, `client` or `listener`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Its URL, for credentials, stores and upstreams.
    pub(super) url: Option<String>,
    pub(super) steps: Vec<CheckResult>,
}

impl CheckGroup {
    pub(super) fn failures(&self) -> usize {
        self.steps.iter().filter(|step| step.has_failed()).count()
    }

    pub(super) fn warnings(&self) -> usize {
        self.steps.iter().filter(|step| step.outcome == CheckStatus::Warning).count()
    }

    pub(super) fn to_json(&self) -> Value {
        let steps: Vec<_> = self.steps.iter().map(CheckResult::to_json).collect();
        let ok = self.failures() == 0;
        json!({ "kind": self.kind, "name": self.name, "url": self.url, "ok": ok, "steps": steps })
    }

    /// Its failed steps, each with the part that it belongs to.
    pub(super) fn failures_json(&self) -> impl Iterator<Item = Value> {
        self.steps.iter().filter(|step| step.has_failed()).map(|step| {
            let mut failure = step.to_json();
            (failure["kind"], failure["name"]) = (self.kind.into(), self.name.as_str().into());
            failure
        })
    }

    /// Prints its failed steps again, one a line.
    pub(super) fn print_failures(&self) -> io::Result<()> {
        self.steps.iter().filter(|step| step.has_failed()).try_for_each(|step| {
            outln!("  {} {}: {}: {}", self.kind, self.name, step.name, step.found)
        })
    }

    pub(super) fn print(&self) -> io::Result<()> {
        let url = self.url.as_deref().unwrap_or_default();
        outln!("\n{}", format!("{} {}  {url}", self.kind, self.name).trim_end())?;
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        for step in &self.steps {
            let found = with_ages(&step.found, Timestamp::now());
            outln!("  {} {:width$}  {found}", step.outcome.mark(), step.name)?;
            if let Some(hint) = &step.hint {
                outln!("    {:width$}  {hint}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_behind_a_semicolon() {
        let step =
            CheckResult::from_error("client_id", &"file /x does not exist; create it; or not");
        assert_eq!(step.found, "file /x does not exist");
        assert_eq!(step.hint.as_deref(), Some("create it; or not"));
        assert_eq!(CheckResult::from_error("a", &"no more").hint, None);
        assert_eq!(step.to_json()["status"], "failed");
        assert_eq!(CheckResult::ok("a", "b").warning().to_json()["ok"], true);
    }
}
