//! The report: figures of several runs, a table and a plot of each.

use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy)]
pub enum Bound {
    /// At least this ratio; NaN for a figure that is only shown.
    Least(f64),
    /// No further from 1 than this.
    Within(f64),
    Zero,
}

/// How many times the rate of what it is held against.
#[derive(Clone)]
pub struct Figure {
    what: String,
    against: String,
    ratio: f64,
    bound: Bound,
    rates: Option<(f64, f64)>,
}

impl Figure {
    pub fn new(what: &str, against: &str, ratio: f64, bound: Bound) -> Figure {
        Figure { what: what.into(), against: against.into(), ratio, bound, rates: None }
    }

    /// Calls a second, its own and the other's.
    pub fn rates(mut self, own: f64, other: f64) -> Figure {
        self.rates = Some((own, other));
        self
    }

    fn verdict(&self) -> &'static str {
        let met = match self.bound {
            Bound::Least(least) if least.is_nan() => return "",
            Bound::Least(least) => self.ratio >= least,
            Bound::Within(part) => (self.ratio - 1.0).abs() <= part,
            Bound::Zero => self.ratio == 0.0,
        };
        if met { "met" } else { "not met" }
    }

    fn bound(&self) -> String {
        match self.bound {
            Bound::Least(least) if least.is_nan() => String::new(),
            Bound::Least(least) => format!("{least}"),
            Bound::Within(part) => format!("within {} %", part * 100.0),
            Bound::Zero => "0".into(),
        }
    }

    fn line(&self) -> String {
        let (kind, value) = match self.bound {
            Bound::Least(least) => ("least", least),
            Bound::Within(part) => ("within", part),
            Bound::Zero => ("zero", 0.0),
        };
        let (own, other) = self.rates.unwrap_or((f64::NAN, f64::NAN));
        format!("{}\t{}\t{}\t{kind}\t{value}\t{own}\t{other}", self.what, self.against, self.ratio)
    }

    fn parse(line: &str) -> Figure {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| fields[at].parse::<f64>().expect("a figure");
        let bound = match fields[3] {
            "least" => Bound::Least(number(4)),
            "within" => Bound::Within(number(4)),
            _ => Bound::Zero,
        };
        let figure = Figure::new(fields[0], fields[1], number(2), bound);
        if number(5).is_nan() { figure } else { figure.rates(number(5), number(6)) }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.3}  {:13} {:8} {} | {}",
            self.ratio,
            self.bound(),
            self.verdict(),
            self.what,
            self.against
        )
    }
}

/// A run: what it ran on, and its figures.
struct Run {
    machine: String,
    version: String,
    figures: Vec<Figure>,
    /// What scripts/instructions counted.
    instructions: Option<String>,
}

pub fn save(file: &Path, figures: &[Figure]) {
    let row = crate::keys::connect("postgres")
        .query_one(
            "SELECT current_setting('server_version'), current_setting('shared_buffers'), default_version
               FROM pg_available_extensions WHERE name = 'keywright'",
            &[],
        )
        .expect("version");
    let (version, buffers, keywright): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let page = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let huge =
        if page("HugePages_Total:") > page("HugePages_Free:") { "huge pages" } else { "no huge pages" };
    let version = version.split(' ').next().unwrap_or_default().to_owned();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let cores = cpu.matches("processor\t").count();
    let kernel = Command::new("uname")
        .arg("-r")
        .output()
        .map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // What comes after it is whose build it is.
    let kernel = kernel.split('-').next().unwrap_or_default();
    let mut text = format!(
        "keywright {keywright} on {name}, {cores} cores, Linux {kernel}, shared_buffers {buffers}, {huge}, fsync off\n{version}\n"
    );
    for figure in figures {
        text.push_str(&figure.line());
        text.push('\n');
    }
    fs::write(file, text).expect("a file of figures");
}

fn load(file: &str) -> Run {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut lines = text.lines().map(str::to_owned);
    let (machine, version) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let instructions =
        fs::read_to_string(format!("{file}.instructions")).ok().map(|text| text.trim().replace('\n', ", "));
    Run { machine, version, instructions, figures: lines.map(|line| Figure::parse(&line)).collect() }
}

pub fn write(files: &[&str]) {
    let runs: Vec<Run> = files.iter().map(|file| load(file)).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::from(
        "# How fast it is\n\n\
         Written by `make bench`, which measures everything against something else in the same run: slice by slice, one after the\n\
         other, forwards and backwards. A ratio is the median over the rounds of one rate divided by the other; rates are medians, a\n\
         second. A client and its server share one core, unless it says otherwise: so the work is measured, not the scheduler. The\n\
         client sends what libpq's `PQexecPrepared` sends. The baselines are in [baselines.sql](baselines.sql).\n",
    );
    for run in &runs {
        let short = run.version.split('.').next().unwrap_or_default();
        _ = write!(
            text,
            "\n## PostgreSQL {}\n\n{}.\n\n![Calls a second](rates-{short}.svg)\n\n",
            run.version, run.machine
        );
        text.push_str(
            "| what | against | at least | measured | | rate | its rate |\n|---|---|---|---|---|---|---|\n",
        );
        for figure in &run.figures {
            let (own, other) =
                figure.rates.map_or(Default::default(), |(own, other)| (rate(own), rate(other)));
            let measured = match figure.bound {
                Bound::Zero => format!("{}", figure.ratio),
                _ => format!("{:.3}", figure.ratio),
            };
            _ = writeln!(
                text,
                "| {} | {} | {} | {measured} | {} | {own} | {other} |",
                figure.what,
                figure.against,
                figure.bound(),
                figure.verdict()
            );
        }
        if let Some(counted) = &run.instructions {
            _ = writeln!(
                text,
                "\nInstructions in the server for one call, by callgrind (`make instructions`): {counted}."
            );
        }
        fs::write(directory.join(format!("rates-{short}.svg")), plot(run)).expect("a plot");
        println!("\nPostgreSQL {}", run.version);
        for figure in &run.figures {
            println!("{figure}");
        }
    }
    fs::write(directory.join("report.md"), text).expect("the report");
}

fn rate(value: f64) -> String {
    if value >= 1000.0 { format!("{:.1} k", value / 1000.0) } else { format!("{value:.1}") }
}

/// Bars for single calls, readable on light and on dark ground.
fn plot(run: &Run) -> String {
    let mut bars: Vec<(String, f64, bool)> = Vec::new();
    for figure in &run.figures {
        let Some((own, other)) = figure.rates else { continue };
        match (figure.what.as_str(), figure.against.as_str()) {
            ("verify_api_key, 1 client, 100,000 keys", against) => {
                if bars.is_empty() {
                    bars.push(("verify_api_key".into(), own, true));
                }
                let against = against
                    .replace("prepared SELECT of the row by its primary key", "SELECT of the row by its key");
                bars.push((
                    against.replace(": the round trip itself", " (the round trip itself)"),
                    other,
                    false,
                ));
            }
            (what, _) if what.starts_with("authorize_api_key") => {
                bars.push(("authorize_api_key".into(), own, true))
            }
            (what, "10,000 keys") => {
                let is_own = what.starts_with("verify_api_key");
                let what = what.replace("the row by its primary key", "SELECT of the row");
                bars.push((what, own, is_own));
            }
            _ => (),
        }
    }
    let most = bars.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    let height = 60 + bars.len() * 30;
    // On a ground of its own: a picture does not know which theme the page around it has.
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <style>text{{fill:#24292f}}.own{{fill:#2563eb}}.other{{fill:#94a3b8}}.page{{fill:#f6f8fa}}</style>\n\
         <rect class=\"page\" width=\"760\" height=\"{height}\" rx=\"6\"/>\n\
         <text x=\"10\" y=\"24\" font-weight=\"bold\">Calls a second, 1 client on one core, PostgreSQL {}</text>\n",
        run.version
    );
    for (at, (name, value, is_own)) in bars.iter().enumerate() {
        let (y, width) = (44 + at * 30, value / most * 360.0);
        let class = if *is_own { "own" } else { "other" };
        _ = writeln!(
            svg,
            "<text x=\"310\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{class}\" x=\"320\" y=\"{y}\" width=\"{width:.0}\" height=\"20\" rx=\"2\"/>\
             <text x=\"{:.0}\" y=\"{}\">{}</text>",
            y + 15,
            328.0 + width,
            y + 15,
            rate(*value)
        );
    }
    svg.push_str("</svg>\n");
    svg
}
