//! As much of Markdown as the documents use: links, headings, code spans and fenced blocks.

use std::fs;
use std::path::Path;

/// One document.
pub struct Document {
    /// Its path from the root of the repository, with `/` between names.
    pub path: String,
    /// Lines outside fenced blocks.
    prose: Vec<String>,
    blocks: Vec<(String, Block)>,
}

/// A fenced block.
#[derive(Clone)]
pub struct Block {
    /// Number of its first line.
    pub line: usize,
    pub text: String,
}

impl Document {
    pub fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let (mut prose, mut blocks) = (Vec::new(), Vec::new());
        let mut open: Option<(String, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    let block = Block { line: index + 2, text: String::new() };
                    open = Some((language.to_owned(), block));
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some((_, block)), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => prose.push(line.to_owned()),
            }
        }
        assert!(open.is_none(), "{path}: a block is not closed");
        Self { path, prose, blocks }
    }

    /// Targets of its links.
    pub fn links(&self) -> impl Iterator<Item = String> {
        let text = without_code(&self.prose.join("\n"));
        let targets: Vec<String> = text
            .split("](")
            .skip(1)
            .filter_map(|after| after.split(')').next())
            .map(|target| target.trim_matches(['<', '>']).to_owned())
            .collect();
        targets.into_iter()
    }

    /// The anchors that its headings get in mdBook and on GitHub.
    pub fn anchors(&self) -> impl Iterator<Item = String> {
        self.prose.iter().filter_map(|line| {
            let heading = line.trim_start_matches('#');
            (heading.len() < line.len()).then(|| anchor(heading))
        })
    }

    /// What stands between backticks.
    pub fn code_spans(&self) -> impl Iterator<Item = String> {
        let spans: Vec<String> =
            self.prose.join("\n").split('`').skip(1).step_by(2).map(str::to_owned).collect();
        spans.into_iter()
    }

    /// Its fenced blocks in a language.
    pub fn blocks(&self, language: &str) -> Vec<Block> {
        let wanted = self.blocks.iter().filter(|(found, _)| found == language);
        wanted.map(|(_, block)| block.clone()).collect()
    }
}

/// Text without what stands between backticks.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    });
    kept.collect()
}

/// A relative link, from the document that it stands in.
pub fn joined(document: &str, link: &str) -> String {
    let mut names: Vec<&str> = document.split('/').collect();
    names.pop();
    for name in link.trim_end_matches('/').split('/') {
        match name {
            "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// The words of a command line: quotes hold them together, a `#` between words begins a
/// comment, and `>` or `|` what is not the command's own.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (letter, quote) {
            ('#' | '>' | '|', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn markdown_is_read() {
    assert_eq!(anchor(" Operating `it`: A-b, c_d"), "operating-it-a-b-c_d");
    assert_eq!(joined("docs/src/guide/a.md", "../../../config/"), "config");
    assert_eq!(joined("README.md", "./docs/x.md"), "docs/x.md");
    assert_eq!(words("a  'b c' d#e # f"), ["a", "b c", "d#e"]);
    assert_eq!(words("a '>' > f"), ["a", ">"]);
    assert_eq!(without_code("a `b](c)` [d](e)"), "a  [d](e)");
}
