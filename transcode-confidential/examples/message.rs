//! Encrypts or decrypts standard input to standard output with a key given on the command line.
//!
//! For experiments and for the interoperability test with the official Encryption SDK: a key on a command line is no
//! secret, so never use this on content that matters.
//!
//! ```text
//! message encrypt KEY_ID#VERSION HEX_KEY FRAME_LENGTH [NAME=VALUE]... < plaintext > message
//! message decrypt KEY_ID#VERSION HEX_KEY              [NAME=VALUE]... < message > plaintext
//! ```
//!
//! Decryption writes verified frames as they come: only exit status 0 says that the output is complete.

use std::{
    error::Error,
    io::{self, Read, Write},
};

use transcode_confidential::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, Malformed, WrappingKey},
    secret::KeyMaterial,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(verb), Some(name), Some(hex_key)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: message encrypt|decrypt KEY_ID#VERSION HEX_KEY [FRAME_LENGTH] [NAME=VALUE]...".into());
    };
    let (key_id, version) = name.split_once('#').ok_or("the key is named KEY_ID#VERSION")?;
    let (key_id, version) = (key_id.parse::<KeyId>()?, KeyVersion(version.parse()?));
    let mut key = [0; 32];
    hex::decode_to_slice(hex_key, &mut key)?;
    let material = KeyMaterial::from_bytes(key);
    let wrap = WrappingKey { key_id: &key_id, version, material: &material };
    match verb.as_str() {
        "encrypt" => {
            let length = FrameLength::new(arguments.next().ok_or("a frame length is missing")?.parse()?)?;
            encrypt(&wrap, &context(arguments)?, length)
        }
        "decrypt" => decrypt(&wrap, &context(arguments)?),
        _ => Err("the verbs are encrypt and decrypt".into()),
    }
}

fn context(pairs: impl Iterator<Item = String>) -> Result<EncryptionContext, Box<dyn Error>> {
    let mut context = EncryptionContext::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or("context is given as NAME=VALUE")?;
        context.insert(name, value)?;
    }
    Ok(context)
}

fn encrypt(wrap: &WrappingKey<'_>, context: &EncryptionContext, length: FrameLength) -> Result<(), Box<dyn Error>> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let (mut chunk, mut sealed) = (vec![0; 1 << 16], Vec::new());
    let mut encryptor = Encryptor::begin(wrap, context, length, &OsEntropy, &mut sealed)?;
    loop {
        let count = input.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        encryptor.push(chunk.get(..count).unwrap_or_default(), &mut sealed)?;
        output.write_all(&sealed)?;
        sealed.clear();
    }
    encryptor.finish(&mut sealed)?;
    output.write_all(&sealed)?;
    Ok(output.flush()?)
}

fn decrypt(wrap: &WrappingKey<'_>, expected: &EncryptionContext) -> Result<(), Box<dyn Error>> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut chunk = vec![0; 1 << 16];
    let mut reader = HeaderReader::new();
    let mut decryptor = None;
    let mut plaintext = Vec::new();
    loop {
        let count = input.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        let mut rest = chunk.get(..count).unwrap_or_default();
        if decryptor.is_none()
            && let Some(header) = reader.push(&mut rest)?
        {
            header.require_context(expected)?;
            decryptor = Some(header.unwrap(wrap)?);
        }
        if let Some(decryptor) = &mut decryptor {
            // What precedes a bad frame is authentic; it is written, and the exit status tells.
            let outcome = decryptor.push(rest, &mut plaintext);
            output.write_all(&plaintext)?;
            plaintext.clear();
            outcome?;
        }
    }
    decryptor.ok_or(Malformed::Truncated)?.finish()?;
    Ok(output.flush()?)
}
