//! Pipes: what ffmpeg writes goes straight into a message, and comes back as the same frames.

use std::process::Stdio;

use crate::{KEY, confidential, ffmpeg, world};

#[tokio::test]
async fn what_ffmpeg_pipes_into_a_message_comes_back_frame_by_frame() {
    if !ffmpeg::is_here() {
        return;
    }
    let world = world().await;
    world.operator().generate(KEY).await.unwrap();
    let (film, sealed) = (world.dir().join("film.ts"), world.dir().join("film.tce"));
    ffmpeg::film(&film, 3).await;

    // ffmpeg -i film.ts -c copy -f mpegts - | confidential encrypt --key K > film.tce
    let mut packager =
        ffmpeg::command(&["-i", film.to_str().unwrap(), "-c", "copy", "-f", "mpegts", "-"]).spawn().unwrap();
    let mut encrypt = confidential(&world, &["encrypt", "--key", KEY]);
    encrypt.stdin(packager.stdout.take().unwrap()).stdout(std::fs::File::create(&sealed).unwrap());
    let encrypted = tokio::task::spawn_blocking(move || encrypt.output().unwrap()).await.unwrap();
    assert!(encrypted.status.success(), "{}", String::from_utf8_lossy(&encrypted.stderr));
    assert!(packager.wait().unwrap().success());

    // confidential decrypt film.tce | ffmpeg -i - -f framemd5 -
    let mut decrypt = confidential(&world, &["decrypt", sealed.to_str().unwrap()]).spawn().unwrap();
    let mut player = ffmpeg::command(&["-i", "-", "-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    player.stdin(Stdio::from(decrypt.stdout.take().unwrap()));
    let played = tokio::task::spawn_blocking(move || player.output().unwrap()).await.unwrap();
    assert!(decrypt.wait().unwrap().success());
    let frames = ffmpeg::hashes(&played.stdout);
    assert_eq!(frames.len(), 60);
    assert_eq!(frames, ffmpeg::frames_of_file(&film).await);
    world.check().intact();
}
