//! One direction of a link: a packet goes in, and comes out later or not at all.

use std::time::Duration;

use muster_types::Instant;
use rand::Rng;

/// How packets get lost on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    None,
    /// Each packet by itself, with this probability.
    Independent(f64),
    /// Gilbert-Elliott in time: the link is good or bad for exponentially distributed spans with these means.
    Bursts {
        good: Duration,
        bad: Duration,
        loss_when_good: f64,
        loss_when_bad: f64,
    },
}

/// What a link does to packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub delay: Duration,
    /// Up to this much more, evenly distributed; packets keep their order.
    pub jitter: Duration,
    /// Bits a second; none is without limit.
    pub rate: Option<u64>,
    pub loss: Loss,
    /// Bytes that may wait for the rate; further packets are dropped.
    pub queue: usize,
}

impl Default for Shape {
    /// A perfect link.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            loss: Loss::None,
            queue: 256 * 1024,
        }
    }
}

impl Shape {
    /// A perfect link but for its delay.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives(Instant),
    Lost,
    QueueFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Good,
    Bad,
}

/// The link's state.
#[derive(Debug, Clone)]
pub struct Link {
    shape: Shape,
    free_at: Instant,
    last_arrival: Instant,
    weather: Weather,
    weather_until: Option<Instant>,
}

impl Link {
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            free_at: Instant::ZERO,
            last_arrival: Instant::ZERO,
            weather: Weather::Good,
            weather_until: None,
        }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Changes the link's habits; packets under way keep their arrival.
    pub fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        self.weather = Weather::Good;
        self.weather_until = None;
    }

    /// A packet of `bytes` enters.
    pub fn send(&mut self, now: Instant, bytes: usize, rng: &mut impl Rng) -> Fate {
        let Some(sent_at) = self.enqueue(now, bytes) else {
            return Fate::QueueFull;
        };
        if self.loses(now, rng) {
            return Fate::Lost;
        }
        let jitter = self.shape.jitter.mul_f64(rng.random::<f64>());
        let arrival = (sent_at + self.shape.delay + jitter).max(self.last_arrival);
        self.last_arrival = arrival;
        Fate::Arrives(arrival)
    }

    /// The moment at which the packet's last bit has left, if the queue takes it.
    fn enqueue(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.shape.rate else {
            return Some(now);
        };
        let waiting = self.free_at.since(now).as_secs_f64() * rate as f64 / 8.0;
        if waiting + bytes as f64 > self.shape.queue as f64 {
            return None;
        }
        let transmission = Duration::from_secs_f64(bytes as f64 * 8.0 / rate.max(1) as f64);
        self.free_at = self.free_at.max(now) + transmission;
        Some(self.free_at)
    }

    fn loses(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let probability = match self.shape.loss {
            Loss::None => return false,
            Loss::Independent(probability) => probability,
            Loss::Bursts { good, bad, loss_when_good, loss_when_bad } => {
                self.turn_weather(now, good, bad, rng);
                match self.weather {
                    Weather::Good => loss_when_good,
                    Weather::Bad => loss_when_bad,
                }
            }
        };
        rng.random::<f64>() < probability
    }

    fn turn_weather(&mut self, now: Instant, good: Duration, bad: Duration, rng: &mut impl Rng) {
        let mut until = match self.weather_until {
            Some(until) => until,
            None => now + exponential(good, rng),
        };
        while until <= now {
            let (weather, mean) = match self.weather {
                Weather::Good => (Weather::Bad, bad),
                Weather::Bad => (Weather::Good, good),
            };
            self.weather = weather;
            until += exponential(mean, rng);
        }
        self.weather_until = Some(until);
    }
}

/// An exponentially distributed span, at least a microsecond so that time always advances.
fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    let uniform: f64 = rng.random::<f64>().max(f64::MIN_POSITIVE);
    mean.mul_f64(-uniform.ln()).max(Duration::from_micros(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_elapsed(Duration::from_micros(micros))
    }

    proptest! {
        #[test]
        fn packets_keep_their_order_and_arrive_within_delay_and_jitter(
            seed: u64, gaps in prop::collection::vec(0_u64..5_000, 1..200), delay in 0_u64..100, jitter in 0_u64..50,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let shape = Shape {
                delay: Duration::from_millis(delay),
                jitter: Duration::from_millis(jitter),
                ..Shape::default()
            };
            let mut link = Link::new(shape);
            let (mut now, mut last) = (0, Instant::ZERO);
            for gap in gaps {
                now += gap;
                let Fate::Arrives(arrival) = link.send(at(now), 100, &mut rng) else { panic!("lost") };
                prop_assert!(arrival >= last);
                prop_assert!(arrival.since(at(now)) >= shape.delay);
                prop_assert!(arrival.since(at(now)) <= shape.delay + shape.jitter);
                last = arrival;
            }
        }

        #[test]
        fn a_rate_is_never_exceeded_and_a_full_queue_drops(
            sizes in prop::collection::vec(64_usize..1_500, 1..300), rate in 50_000_u64..10_000_000,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let mut link = Link::new(Shape { rate: Some(rate), queue: 20_000, ..Shape::default() });
            let mut carried = 0_usize;
            for bytes in sizes {
                match link.send(Instant::ZERO, bytes, &mut rng) {
                    Fate::Arrives(arrival) => {
                        carried += bytes;
                        let least = carried as f64 * 8.0 / rate as f64;
                        prop_assert!((arrival.elapsed().as_secs_f64() - least).abs() < 1e-3);
                        prop_assert!(carried <= 20_000);
                    }
                    Fate::QueueFull => prop_assert!(carried + bytes > 20_000 - 1_500),
                    Fate::Lost => prop_assert!(false, "nothing is lost on a link without loss"),
                }
            }
        }
    }

    #[test]
    fn independent_loss_is_the_stated_share() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut link = Link::new(Shape { loss: Loss::Independent(0.1), ..Shape::default() });
        let lost = (0..20_000).filter(|at_| link.send(at(*at_), 100, &mut rng) == Fate::Lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost} of 20000 lost");
    }

    #[test]
    fn bursts_last_as_long_as_stated_and_lose_the_stated_share() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (good, bad) = (Duration::from_millis(2_700), Duration::from_millis(300));
        let loss = Loss::Bursts { good, bad, loss_when_good: 0.0, loss_when_bad: 1.0 };
        let mut link = Link::new(Shape { loss, ..Shape::default() });
        let packets = 200_000_u64;
        let (mut lost, mut bursts, mut before) = (0_u64, 0_u64, false);
        for millisecond in (0..packets * 10).step_by(10) {
            let is_lost = link.send(at(millisecond * 1_000), 100, &mut rng) == Fate::Lost;
            lost += u64::from(is_lost);
            bursts += u64::from(is_lost && !before);
            before = is_lost;
        }
        let mean_burst = lost as f64 * 10.0 / bursts as f64;
        assert!((0.08..0.12).contains(&(lost as f64 / packets as f64)), "{lost} of {packets} lost");
        assert!((270.0..340.0).contains(&mean_burst), "a burst lasts {mean_burst} ms in the mean");
    }
}
