//! Two tables: the median of the rounds, and the least of them, each with its ratio to the best peer.
//! Where a machine is slower for everybody at times, the least is of the other times.

/// Figures by proxy, in the order in which they were first added.
pub struct Report {
    proxies: Vec<&'static str>,
    figures: Vec<(String, Vec<Vec<f64>>)>,
}

impl Report {
    /// An empty table for these proxies.
    pub fn new(proxies: impl Iterator<Item = &'static str>) -> Self {
        Self { proxies: proxies.collect(), figures: Vec::new() }
    }

    /// Notes one measurement.
    pub fn add(&mut self, proxy: &str, figure: &str, value: f64) {
        let Some(column) = self.proxies.iter().position(|name| *name == proxy) else { return };
        let row = self.figures.iter().position(|(name, _)| name == figure).unwrap_or_else(|| {
            self.figures.push((figure.to_owned(), vec![Vec::new(); self.proxies.len()]));
            self.figures.len() - 1
        });
        self.figures[row].1[column].push(value);
    }

    /// Prints it; ratios are to the best of all but `own`, and a smaller figure is always better.
    pub fn print(&self, own: &str) {
        println!("median (ratio to the best peer) [spread of the rounds in % of the median]");
        self.table(own, median);
        println!("\nleast of the rounds (ratio to the best peer's)");
        self.table(own, least);
    }

    fn table(&self, own: &str, one_of: fn(&[f64]) -> Option<f64>) {
        println!("| | {} |", self.proxies.join(" | "));
        println!("|---|{}", "---|".repeat(self.proxies.len()));
        for (figure, columns) in &self.figures {
            let peers = self.proxies.iter().zip(columns).filter(|(name, _)| **name != own);
            let best = peers.filter_map(|(_, values)| one_of(values)).reduce(f64::min);
            let cells: Vec<_> = columns.iter().map(|values| cell(values, one_of, best)).collect();
            println!("| {figure} | {} |", cells.join(" | "));
        }
    }
}

fn cell(values: &[f64], one_of: fn(&[f64]) -> Option<f64>, best: Option<f64>) -> String {
    let Some(value) = one_of(values) else { return "-".into() };
    let ratio = best.map_or(String::new(), |best| format!(" ({:.2}x)", value / best));
    let (low, high) = (least(values).unwrap_or(value), values.iter().copied().fold(0.0, f64::max));
    let spread = match values.len() {
        0..3 => String::new(),
        _ if low == value => String::new(),
        _ => format!(" [{:.0}%]", (high - low) / value * 100.0),
    };
    format!("{value:.3}{ratio}{spread}")
}

fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

/// The middle value.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
