//! One figure: its sample, and the line that tells it, as Markdown.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What was measured, over how many events, and what is aimed at.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) what: Cow<'static, str>,
    /// Such as "lab, warm".
    pub(crate) conditions: Cow<'static, str>,
    pub(crate) unit: &'static str,
    pub(crate) aim: String,
    values: Vec<f64>,
}

impl Row {
    pub(crate) const HEAD: &'static str = "| what | where | n | min | mean | p50 | p95 | p99 | max | unit | aim |\n\
                                    |---|---|---|---|---|---|---|---|---|---|---|";

    pub(crate) fn new(
        what: impl Into<Cow<'static, str>>,
        conditions: impl Into<Cow<'static, str>>,
        unit: &'static str,
        aim: impl Into<String>,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        Self { what: what.into(), conditions: conditions.into(), unit, aim: aim.into(), values }
    }

    /// The same of spans of time, in milliseconds.
    pub(crate) fn times(
        what: impl Into<Cow<'static, str>>,
        conditions: impl Into<Cow<'static, str>>,
        aim: impl Into<String>,
        spans: &[Duration],
    ) -> Self {
        Self::new(what, conditions, "ms", aim, spans.iter().map(|span| span.as_secs_f64() * 1e3).collect())
    }

    /// The least value that `share` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.values.len() as f64).ceil() as usize;
        self.values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, conditions, unit, aim, values } = self;
        write!(f, "| {what} | {conditions} | {}", values.len())?;
        let (least, most) = (self.percentile(0.0), self.percentile(1.0));
        let [half, most_of, nearly] = [0.5, 0.95, 0.99].map(|share| self.percentile(share));
        for value in [least, self.mean(), half, most_of, nearly, most] {
            write!(f, " | {value:.1}")?;
        }
        write!(f, " | {unit} | {aim} |")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let row = Row::new("x", "lab, warm", "ms", "-", vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|share| row.percentile(share)), [1.0, 2.0, 4.0, 4.0]);
        assert_eq!(row.to_string(), "| x | lab, warm | 4 | 1.0 | 2.5 | 2.0 | 4.0 | 4.0 | 4.0 | ms | - |");
    }

    #[test]
    fn a_sample_of_nothing_says_so() {
        assert!(Row::new("x", "lab, warm", "ms", "-", Vec::new()).to_string().contains("| 0 | NaN"));
    }
}
