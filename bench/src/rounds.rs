//! Rates of several things in one run: slice by slice, one after the other, forwards and backwards, so that
//! what disturbs the machine disturbs all of them. What counts is the median.

use std::time::Instant;

pub struct Variant<'a> {
    pub name: &'static str,
    /// Calls in a slice.
    pub calls: usize,
    pub run: Box<dyn FnMut(usize) + 'a>,
}

impl<'a> Variant<'a> {
    pub fn new(name: &'static str, calls: usize, run: impl FnMut(usize) + 'a) -> Variant<'a> {
        Variant { name, calls, run: Box::new(run) }
    }
}

/// Numbers that are the same in every run (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Calls a second, a row a variant, a column a round.
pub struct Rates {
    pub names: Vec<&'static str>,
    rates: Vec<Vec<f64>>,
}

pub fn interleave(mut variants: Vec<Variant>, rounds: usize) -> Rates {
    for variant in &mut variants {
        (variant.run)(variant.calls);
    }
    let mut rates = vec![Vec::with_capacity(rounds); variants.len()];
    for round in 0..rounds {
        let forwards: Vec<usize> = (0..variants.len()).collect();
        let order: Vec<usize> = if round % 2 == 0 { forwards } else { forwards.into_iter().rev().collect() };
        for at in order {
            let Variant { calls, run, .. } = &mut variants[at];
            let begun = Instant::now();
            run(*calls);
            rates[at].push(*calls as f64 / begun.elapsed().as_secs_f64());
        }
    }
    Rates { names: variants.iter().map(|variant| variant.name).collect(), rates }
}

impl Rates {
    pub fn rate(&self, variant: usize) -> f64 {
        median(self.rates[variant].clone())
    }

    /// How fast the one is compared with the other: the median over the rounds.
    pub fn ratio(&self, one: usize, other: usize) -> f64 {
        median(self.rates[one].iter().zip(&self.rates[other]).map(|(one, other)| one / other).collect())
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
