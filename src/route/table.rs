//! `Table`: rules in a trie of segments, so that ten thousand routes cost what ten do.
//!
//! Among the rules that take a request's method, the most specific wins: an exact host before a
//! wildcard before none, then the path segment by segment from the left. The order in which rules
//! were written does not matter.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::Method;

use super::host::HostPattern;
use super::path::PatternSegment;
use super::rule::{Methods, Rule};
use super::target::{lenient_interpretations, normalize_segment};

/// Rules and what they lead to.
#[derive(Debug)]
pub struct Table<T> {
    /// Exact hosts, then wildcards, then any host.
    exact: HashMap<String, Node>,
    wildcard: Vec<(HostPattern, Node)>,
    any: Node,
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    methods: Methods,
    value: T,
}

/// One segment's place in the trie; the numbers are indexes of entries.
#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node, BuildHasherDefault<Fnv>>,
    any: Option<Box<Node>>,
    rest: Vec<usize>,
    here: Vec<usize>,
}

/// Whether `/Pay` is `/pay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Any,
}

/// What a table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a, T> {
    /// A rule claims it.
    Found(&'a T),
    /// Rules claim its host and path, but none its method; the value of the Allow header.
    MethodNotAllowed(String),
    /// No rule claims its host and path.
    NotFound,
}

/// Two rules that claim a common request, neither being more specific: their places in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier one.
    pub first: usize,
    /// The later one.
    pub second: usize,
}

impl<T> Table<T> {
    /// Sorts rules in.
    ///
    /// # Errors
    /// All pairs of rules that conflict.
    pub fn build(rules: Vec<(Rule, T)>) -> Result<Self, Vec<Conflict>> {
        let mut table = Self {
            exact: HashMap::new(),
            wildcard: Vec::new(),
            any: Node::default(),
            entries: Vec::new(),
        };
        let mut conflicts = Vec::new();
        for (index, (rule, value)) in rules.into_iter().enumerate() {
            let Self { exact, wildcard, any, entries } = &mut table;
            let root = match &rule.host {
                None => any,
                Some(host) if host.is_wildcard() => {
                    let known = wildcard.iter().position(|(pattern, _)| pattern == host);
                    let at = known.unwrap_or_else(|| {
                        wildcard.push((host.clone(), Node::default()));
                        wildcard.len() - 1
                    });
                    &mut wildcard[at].1
                }
                Some(host) => exact.entry(host.as_str().to_owned()).or_default(),
            };
            let place = root.place(&rule);
            let overlapping = place.iter().filter(|other| {
                entries[**other].methods.iter().any(|method| rule.methods.contains(method))
            });
            conflicts.extend(overlapping.map(|first| Conflict { first: *first, second: index }));
            place.push(index);
            entries.push(Entry { methods: rule.methods, value });
        }
        if conflicts.is_empty() { Ok(table) } else { Err(conflicts) }
    }

    /// Finds the rule that claims a request. `host` is in lower case and without port, `path` is
    /// canonical. A path that another rule would claim, were its slashes decoded or its parameters
    /// cut off, is nobody's: a token for one reading must not travel with the other.
    pub fn find(&self, host: &str, method: &Method, path: &str) -> Lookup<'_, T> {
        let found = self.search(host, method, path, Case::Exact);
        let ours =
            |reading: &String| match (self.search(host, method, reading, Case::Exact), &found) {
                (Ok(other), Ok(index)) => other == *index,
                (Err(refused), _) => refused.is_empty(),
                (Ok(_), Err(_)) => true,
            };
        if found.is_ok() && !lenient_interpretations(path).iter().all(ours) {
            return Lookup::NotFound;
        }
        match found {
            Ok(index) => Lookup::Found(&self.entries[index].value),
            Err(refused) if refused.is_empty() => Lookup::NotFound,
            Err(refused) => Lookup::MethodNotAllowed(self.allow(&refused)),
        }
    }

    /// What claims a request at an upstream to which `/Pay` is `/pay`, if that is one rule: a literal
    /// in another case goes before `{x}` and `**`, and what is written exactly before both.
    pub fn find_in_any_case(&self, host: &str, method: &Method, path: &str) -> Option<&T> {
        let index = self.search(host, method, path, Case::Any).ok()?;
        Some(&self.entries[index].value)
    }

    /// The entry that claims a request, or those that would if they took its method.
    fn search(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        case: Case,
    ) -> Result<usize, Vec<usize>> {
        let mut refused = Vec::new();
        let mut take = |candidates: &[usize]| {
            let found = candidates.iter().find(|one| self.entries[**one].methods.contains(method));
            if found.is_none() {
                refused.extend_from_slice(candidates);
            }
            found.copied()
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let roots = self
            .exact
            .get(host)
            .into_iter()
            .chain(
                self.wildcard
                    .iter()
                    .filter(|(pattern, _)| pattern.matches(host))
                    .map(|(_, node)| node),
            )
            .chain(std::iter::once(&self.any));
        for root in roots {
            if let Some(index) = root.find(Some(path), case, &mut take) {
                return Ok(index);
            }
        }
        Err(refused)
    }

    /// The value of the Allow header.
    fn allow(&self, refused: &[usize]) -> String {
        let methods = refused.iter().flat_map(|index| self.entries[*index].methods.iter().cloned());
        let allow: Vec<_> =
            Methods::new(methods).iter().map(|method| method.as_str().to_owned()).collect();
        allow.join(", ")
    }
}

impl Node {
    /// Where a rule's index belongs.
    fn place(&mut self, rule: &Rule) -> &mut Vec<usize> {
        let mut node = self;
        for step in rule.path.segments() {
            node = match step {
                PatternSegment::Literal(literal) => {
                    node.literal.entry(literal.to_owned()).or_default()
                }
                PatternSegment::Any => node.any.get_or_insert_default(),
                PatternSegment::Rest => return &mut node.rest,
            };
        }
        &mut node.here
    }

    /// The first entry, in order of specificity, that `take` accepts. `path` is what is left, and
    /// `None` once the last segment has been taken.
    fn find(
        &self,
        path: Option<&str>,
        case: Case,
        take: &mut impl FnMut(&[usize]) -> Option<usize>,
    ) -> Option<usize> {
        let Some(path) = path else {
            return take_if_any(&self.here, take).or_else(|| take_if_any(&self.rest, take));
        };
        let (segment, left) = match path.bytes().position(|byte| byte == b'/') {
            Some(end) => (&path[..end], path.get(end + 1..)),
            None => (path, None),
        };
        let name = normalize_segment(segment);
        if let Some(found) =
            self.literal.get(name.as_ref()).and_then(|node| node.find(left, case, take))
        {
            return Some(found);
        }
        if case == Case::Any {
            let alike = self.literal.iter().filter(|(known, _)| known.eq_ignore_ascii_case(&name));
            let mut found = alike.filter_map(|(_, node)| node.find(left, case, take));
            if let Some(found) = found.next() {
                return Some(found);
            }
        }
        if !segment.is_empty()
            && let Some(found) = self.any.as_ref().and_then(|node| node.find(left, case, take))
        {
            return Some(found);
        }
        take_if_any(&self.rest, take)
    }
}

/// FNV-1a: the keys are segments of the configuration, which nobody chooses to collide, so that a
/// keyed hash would only cost time.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn take_if_any(
    candidates: &[usize],
    take: &mut impl FnMut(&[usize]) -> Option<usize>,
) -> Option<usize> {
    if candidates.is_empty() { None } else { take(candidates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{PathPattern, rule};
    use proptest::prelude::*;

    fn rule(host: Option<&str>, path: &str, methods: &[Method]) -> Rule {
        Rule {
            host: host.map(|host| HostPattern::parse(host).unwrap()),
            path: PathPattern::parse(path).unwrap(),
            methods: Methods::new(methods.iter().cloned()),
        }
    }

    fn table(rules: &[(Option<&str>, &'static str, &[Method])]) -> Table<&'static str> {
        Table::build(
            rules.iter().map(|(host, path, methods)| (rule(*host, path, methods), *path)).collect(),
        )
        .unwrap()
    }

    #[test]
    fn the_most_specific_rule_wins() {
        const G: &[Method] = &[Method::GET];
        let table = table(&[
            (None, "/**", &[Method::GET, Method::POST]),
            (None, "/v1/{a}/x", G),
            (None, "/v1/b/{c}", G),
            (None, "/v1/b/**", &[Method::PUT]),
            (None, "/v1/{a}", G),
            (Some("erp.local"), "/v1/{b}", G),
        ]);
        let check = |host: &str, method: Method, path: &str, expected: &str| {
            assert_eq!(
                table.find(host, &method, path),
                Lookup::Found(&expected),
                "{method} {path}"
            );
        };
        check("x", Method::GET, "/v1/b/x", "/v1/b/{c}");
        check("x", Method::GET, "/v1/q/x", "/v1/{a}/x");
        check("x", Method::HEAD, "/v1/q/x", "/v1/{a}/x");
        check("x", Method::POST, "/v1/q/x", "/**");
        check("x", Method::PUT, "/v1/b", "/v1/b/**");
        check("x", Method::GET, "/v1/b", "/v1/{a}");
        check("erp.local", Method::GET, "/v1/b", "/v1/{b}");
        check("x", Method::GET, "/", "/**");
        assert_eq!(
            table.find("x", &Method::DELETE, "/v1/b/x"),
            Lookup::MethodNotAllowed("GET, HEAD, POST, PUT".into())
        );
    }

    #[test]
    fn every_spelling_and_reading_finds_one_rule() {
        const G: &[Method] = &[Method::GET];
        let table = table(&[
            (None, "/v1/**", G),
            (None, "/v1/pay:close", G),
            (None, "/v1/%C3%A9", G),
            (None, "/v1/pay", &[Method::POST]),
            (None, "/v1/a/b", G),
            (None, "/files/{name}", G),
        ]);
        let check = |path: &str, expected: Option<&str>| {
            let expected = expected.as_ref().map_or(Lookup::NotFound, Lookup::Found);
            assert_eq!(table.find("x", &Method::GET, path), expected, "{path}");
        };
        check("/v1/pay%3aclose", Some("/v1/pay:close"));
        check("/v1/%c3%a9", Some("/v1/%C3%A9"));
        check("/v1/a%20b", Some("/v1/**"));
        check("/v1/x;y", Some("/v1/**"));
        check("/v1/pay:close;x", None);
        check("/v1/a%2Fb", None);
        check("/v1/x%2Fy", Some("/v1/**"));
        check("/files/a%2Fb", Some("/files/{name}"));
    }

    #[test]
    fn conflicts_are_found_whatever_the_order() {
        const G: &[Method] = &[Method::GET];
        let build = |paths: &[(&str, &[Method])]| {
            Table::build(
                paths.iter().map(|(path, methods)| (rule(None, path, methods), ())).collect(),
            )
            .map(|_| ())
        };
        assert_eq!(build(&[("/{a}", G), ("/{b}", G)]), Err(vec![Conflict { first: 0, second: 1 }]));
        assert_eq!(build(&[("/{a}", G), ("/{b}", &[Method::POST])]), Ok(()));
        assert_eq!(build(&[("/a/{b}", G), ("/{a}/b", G)]), Ok(()));
        assert_eq!(build(&[("/a", G), ("/a/", G), ("/a/**", G)]), Ok(()));
    }

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("{x}"), Just("{y}")];
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, rest)| {
            let mut text: String = segments
                .iter()
                .enumerate()
                .map(
                    |(i, s)| {
                        if s.starts_with('{') { format!("/{{p{i}}}") } else { format!("/{s}") }
                    },
                )
                .collect();
            if rest {
                text += "/**"
            } else if text.is_empty() {
                text += "/"
            }
            text
        })
    }

    proptest! {
        /// The trie agrees with the plainest search there is.
        #[test]
        fn a_table_is_the_most_specific_match(
            patterns in prop::collection::hash_set(pattern(), 1..12),
            path in "(/[abc]){1,4}/?",
        ) {
            let patterns: Vec<PathPattern> =
                patterns.iter().map(|text| PathPattern::parse(text).unwrap()).collect();
            let rules = patterns.iter().map(|path| (
                Rule { host: None, path: path.clone(), methods: Methods::new([Method::GET]) },
                path.as_str().to_owned(),
            )).collect();
            let Ok(table) = Table::build(rules) else { return Ok(()) };
            let naive = patterns.iter().filter(|pattern| pattern.covers(&path))
                .min_by(|a, b| rule::compare(a, b)).map(|pattern| pattern.as_str().to_owned());
            match (table.find("", &Method::GET, &path), naive) {
                (Lookup::Found(found), Some(expected)) => prop_assert_eq!(found, &expected),
                (Lookup::NotFound, None) => {}
                (found, expected) => prop_assert!(false, "{:?} but {:?}", found, expected),
            }
        }
    }
}
