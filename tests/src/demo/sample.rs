//! A sample: some seconds of a tone as a WAV file, which any player plays.

const RATE: u32 = 48_000;
const SECONDS: u32 = 12;
const CHANNELS: u16 = 2;

/// PCM, 16 bits, stereo.
pub(super) fn wav() -> Vec<u8> {
    let samples = (0..RATE * SECONDS).flat_map(|n| {
        let time = f64::from(n) / f64::from(RATE);
        let tone = |hz: f64| ((time * hz * std::f64::consts::TAU).sin() * 12_000.0) as i16;
        [tone(440.0), tone(554.37)]
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let length = u32::try_from(data.len()).unwrap();
    let block = CHANNELS * 2;
    [
        b"RIFF",
        &(36 + length).to_le_bytes()[..],
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &CHANNELS.to_le_bytes(),
        &RATE.to_le_bytes(),
        &(RATE * u32::from(block)).to_le_bytes(),
        &block.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &length.to_le_bytes(),
        &data,
    ]
    .concat()
}
