use std::{
    io::Read as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// The real ffmpeg; without it, tests that need it say so and do nothing. Where `CONFIDENTIAL_FFMPEG` is set it must be there.
pub(crate) fn is_here() -> bool {
    let found = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CONFIDENTIAL_FFMPEG").is_none(), "ffmpeg is not here");
    if !found {
        println!("skipped: ffmpeg is not here");
    }
    found
}

/// ffmpeg with these arguments, quiet.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that works by the side; it is killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Waits for its end. It says little enough on standard error to wait for that first.
    pub(crate) async fn ended(mut self) -> (bool, String) {
        let waited = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            (self.0.wait().unwrap().success(), said)
        });
        waited.await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs it, and it must succeed.
pub(crate) async fn must(arguments: &[&str]) -> Vec<u8> {
    let output = run(arguments).await;
    assert!(output.status.success(), "ffmpeg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A film of so many seconds: picture and sound, a key frame each half second.
pub(crate) async fn film(path: &Path, seconds: u32) {
    let (picture, sound) =
        (format!("testsrc2=size=320x180:rate=20:duration={seconds}"), format!("sine=frequency=440:duration={seconds}"));
    must(&[
        "-f",
        "lavfi",
        "-i",
        &picture,
        "-f",
        "lavfi",
        "-i",
        &sound,
        "-c:v",
        "mpeg2video",
        "-g",
        "10",
        "-b:v",
        "500k",
        "-c:a",
        "mp2",
        "-f",
        "mpegts",
        "-y",
        path.to_str().unwrap(),
    ])
    .await;
}

/// MD5 of every decoded frame of the picture, in order.
pub(crate) async fn frames(input: &str) -> Vec<String> {
    let out = must(&[
        "-protocol_whitelist",
        "file,http,tcp,crypto",
        "-allowed_extensions",
        "ALL",
        "-i",
        input,
        "-map",
        "0:v",
        "-fps_mode",
        "passthrough",
        "-f",
        "framemd5",
        "-",
    ])
    .await;
    hashes(&out)
}

/// The same for input that is no playlist.
pub(crate) async fn frames_of_file(input: &Path) -> Vec<String> {
    let input = input.to_str().unwrap();
    hashes(&must(&["-i", input, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]).await)
}

/// The hashes in the output of the muxer framemd5.
pub(crate) fn hashes(framemd5: &[u8]) -> Vec<String> {
    let text = String::from_utf8(framemd5.to_vec()).unwrap();
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    frames.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}
