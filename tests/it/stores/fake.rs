//! Fakes of stores that are Python scripts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::tool;

/// A fake in Python; it ends when it is dropped.
pub struct Fake {
    child: Child,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
    /// Where it is, and who it believes.
    pub about: serde_json::Value,
}

impl Fake {
    /// Starts a script of this folder; `None` where no Python is named.
    pub fn start(script: &str, args: &[&str]) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stores");
        let mut child = Command::new(tool("BEARER_PROXY_PYTHON")?)
            .arg(folder.join(script))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (orders, words) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut fake =
            Self { child, orders, words: BufReader::new(words), about: serde_json::Value::Null };
        fake.about = serde_json::from_str(&fake.word()).expect("the script tells where it is");
        Some(fake)
    }

    fn word(&mut self) -> String {
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        line
    }

    /// One of the things it told of itself.
    pub fn told(&self, what: &str) -> &str {
        self.about[what].as_str().unwrap_or_else(|| panic!("{what}: {}", self.about))
    }

    /// Puts a new version of the secret in place.
    pub fn put(&mut self, value: &str) {
        writeln!(self.orders, "put {value}").unwrap();
        assert_eq!(self.word(), "done\n");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
