//! Takes fields off the front of bytes that a stranger sent: what is too short is refused, nothing panics.

use std::ops::Range;

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A field with two bytes of length before it: where it lies.
    pub(crate) fn counted(&mut self) -> Option<Range<usize>> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let begin = self.at;
        self.take(length)?;
        Some(begin..self.at)
    }

    pub(crate) fn rest(&mut self) -> Range<usize> {
        let begin = self.at;
        self.at = self.bytes.len();
        begin..self.at
    }
}
