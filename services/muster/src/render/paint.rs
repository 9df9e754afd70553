//! Colour, where a terminal shows it and nobody asked to do without (no-color.org).

use std::io::IsTerminal;

/// A stream that may be coloured.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

#[derive(Debug, Clone, Copy)]
pub enum Colour {
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Magenta = 35,
    Cyan = 36,
    Grey = 90,
}

/// Colours that tell hosts apart; yellow and grey mean something.
const OF_HOSTS: [Colour; 4] = [Colour::Cyan, Colour::Magenta, Colour::Blue, Colour::Green];

impl Paint {
    pub fn stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(stream.is_terminal() && !unwanted)
    }

    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.0 { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }

    /// Always the same colour for the same host.
    pub fn host(self, host: &str) -> String {
        let sum = host.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.paint(OF_HOSTS[sum % OF_HOSTS.len()], host)
    }
}
