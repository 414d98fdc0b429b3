//! What a histogram has seen lately: the difference of two readings of it, and quantiles of that.

use prometheus::Histogram;
use prometheus::core::Metric;

/// A histogram as it stood at a moment: observations up to each bound, and in all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    bounds: Vec<(f64, u64)>,
    count: u64,
}

impl Standing {
    pub fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let told = metric.get_histogram();
        let bounds = told.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count()));
        Self {
            bounds: bounds.filter(|(bound, _)| bound.is_finite()).collect(),
            count: told.get_sample_count(),
        }
    }

    /// The quantiles of what was observed since `earlier`, each read within its bucket as if that were evenly filled; of
    /// what lies beyond the last bound, that bound. None where nothing was.
    pub fn quantiles_since<const N: usize>(
        &self,
        earlier: &Standing,
        quantiles: [f64; N],
    ) -> Option<[f64; N]> {
        let seen = self.count.checked_sub(earlier.count).filter(|seen| *seen > 0)?;
        let before = |n: usize| earlier.bounds.get(n).map_or(0, |(_, count)| *count);
        Some(quantiles.map(|quantile| {
            let rank = (quantile * seen as f64).max(1.0);
            let (mut low, mut below) = (0.0, 0);
            for (n, (bound, count)) in self.bounds.iter().enumerate() {
                let upto = count.saturating_sub(before(n));
                if upto as f64 >= rank {
                    let share = (rank - below as f64) / (upto - below) as f64;
                    return low + (bound - low) * share;
                }
                (low, below) = (*bound, upto);
            }
            low
        }))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    #[test]
    fn quantiles_are_of_what_came_since() {
        let opts = HistogramOpts::new("x", "x").buckets(vec![1.0, 2.0, 4.0]);
        let histogram = Histogram::with_opts(opts).unwrap();
        for _ in 0..100 {
            histogram.observe(0.5);
        }
        let earlier = Standing::of(&histogram);
        assert_eq!(earlier.quantiles_since(&earlier, [0.5]), None);
        for value in [1.5, 1.5, 3.0, 9.0] {
            histogram.observe(value);
        }
        let now = Standing::of(&histogram);
        assert_eq!(now.quantiles_since(&earlier, [0.25, 0.5, 0.75, 0.99]), Some([1.5, 2.0, 4.0, 4.0]));
        let all = now.quantiles_since(&Standing::default(), [0.5]).unwrap();
        assert!(all[0] <= 1.0, "{all:?}");
    }
}
