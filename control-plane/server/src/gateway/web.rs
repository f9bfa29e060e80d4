// SPDX-License-Identifier: EUPL-1.2
//! The web client, embedded: one page, assets with hashes in their names, and the headers that keep foreign code out.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::listen::Via;

/// Built by Vite; `build.rs` makes an empty folder where there is none.
#[derive(rust_embed::RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../web/dist"]
struct Dist;

/// Smaller files gain nothing.
const COMPRESS_BYTES_MIN: usize = 512;
/// Most of what 11 gains, at a tenth of its time.
const BROTLI_QUALITY: u32 = 9;
/// One year.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Features of the browser that the page may use.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), screen-wake-lock=(self), \
     speaker-selection=(self), autoplay=(self), geolocation=(), payment=(), usb=(), serial=(), midi=(), hid=(), \
     accelerometer=(), gyroscope=(), magnetometer=(), browsing-topics=()";
const MISSING: &str = "The web client has not been built into this server: run `make web`, then build the server again.\n\
    Die Webseite ist in diesem Server nicht enthalten: `make web` ausführen und den Server neu bauen.\n";

struct Asset {
    bytes: Bytes,
    mime: HeaderValue,
    etag: HeaderValue,
    compressible: bool,
    gzip: OnceLock<Bytes>,
    brotli: OnceLock<Bytes>,
}

/// The files of the web client.
#[derive(Clone)]
pub struct Web(Arc<HashMap<String, Asset>>);

impl Web {
    /// The embedded files.
    #[must_use]
    pub fn embedded() -> Self {
        Self::from_files(Dist::iter().filter_map(|path| {
            let file = Dist::get(&path)?;
            let mime = media_type(&path).to_owned();
            Some((path.into_owned(), mime, file.data.into_owned()))
        }))
    }

    /// Path, media type, content.
    fn from_files(files: impl Iterator<Item = (String, String, Vec<u8>)>) -> Self {
        Self(Arc::new(
            files
                .filter_map(|(path, mime, bytes)| {
                    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
                    let etag = format!(
                        "\"{}\"",
                        data_encoding::HEXLOWER.encode(&hash.as_ref()[..16])
                    );
                    let compressible = bytes.len() >= COMPRESS_BYTES_MIN
                        && (mime.starts_with("text/")
                            || ["javascript", "json", "svg", "wasm", "manifest"]
                                .iter()
                                .any(|kind| mime.contains(kind)));
                    let mime = if mime.starts_with("text/") {
                        format!("{mime}; charset=utf-8")
                    } else {
                        mime
                    };
                    let asset = Asset {
                        bytes: Bytes::from(bytes),
                        mime: HeaderValue::try_from(mime).ok()?,
                        etag: HeaderValue::try_from(etag).ok()?,
                        compressible,
                        gzip: OnceLock::new(),
                        brotli: OnceLock::new(),
                    };
                    Some((path, asset))
                })
                .collect(),
        ))
    }

    /// Compresses everything, so that no request waits for it; takes a second of one core.
    pub fn compress(&self) {
        for asset in self.0.values().filter(|asset| asset.compressible) {
            let _ = gzip(&asset.bytes).map(|bytes| asset.gzip.set(bytes));
            let _ = brotli(&asset.bytes).map(|bytes| asset.brotli.set(bytes));
        }
    }

    /// The page, for `/` and `/c/…`.
    #[must_use]
    pub fn page(&self, via: Via, headers: &HeaderMap) -> Response {
        match self.0.get("index.html") {
            Some(asset) => self.answer(asset, "no-cache", via, headers),
            None => {
                let mut response = (StatusCode::SERVICE_UNAVAILABLE, MISSING).into_response();
                protect(response.headers_mut(), via, headers);
                response
            }
        }
    }

    /// A file below `/assets/`: its name carries a hash of its content.
    #[must_use]
    pub fn asset(&self, path: &str, via: Via, headers: &HeaderMap) -> Response {
        self.file(&format!("assets/{path}"), IMMUTABLE, via, headers)
    }

    /// A file beside the page, such as its icon.
    #[must_use]
    pub fn file(&self, path: &str, cache: &'static str, via: Via, headers: &HeaderMap) -> Response {
        match self.0.get(path) {
            Some(asset) => self.answer(asset, cache, via, headers),
            None => {
                let mut response = (StatusCode::NOT_FOUND, "no such file\n").into_response();
                protect(response.headers_mut(), via, headers);
                response
            }
        }
    }

    /// Files beside the page.
    pub fn root_files(&self) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(|path| !path.contains('/') && *path != "index.html")
    }

    fn answer(
        &self,
        asset: &Asset,
        cache: &'static str,
        via: Via,
        headers: &HeaderMap,
    ) -> Response {
        let known = headers.get(IF_NONE_MATCH).is_some_and(|tags| {
            tags.to_str().is_ok_and(|tags| {
                tags.split(',').any(|tag| {
                    tag.trim().trim_start_matches("W/").as_bytes() == asset.etag.as_bytes()
                })
            })
        });
        let (encoding, bytes) = if accepts(headers, "br")
            && let Some(bytes) = asset.brotli.get()
        {
            (Some("br"), bytes)
        } else if accepts(headers, "gzip")
            && let Some(bytes) = asset.gzip.get()
        {
            (Some("gzip"), bytes)
        } else {
            (None, &asset.bytes)
        };
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::new(Body::from(bytes.clone()))
        };
        let answer = response.headers_mut();
        answer.insert(CONTENT_TYPE, asset.mime.clone());
        answer.insert(ETAG, asset.etag.clone());
        answer.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        if asset.compressible {
            answer.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if let Some(encoding) = encoding {
            answer.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        protect(answer, via, headers);
        response
    }
}

/// What Vite writes; browsers are told not to guess, so an unknown kind is downloaded and nothing else.
fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html",
        "js" | "mjs" => "text/javascript",
        "css" => "text/css",
        "txt" => "text/plain",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        _ => "application/octet-stream",
    }
}

/// Does a person's browser ask for a page?
#[must_use]
pub fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}

fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let refused = parameters
                .trim()
                .strip_prefix("q=")
                .is_some_and(|quality| quality.trim().parse::<f32>() == Ok(0.0));
            name.trim().eq_ignore_ascii_case(encoding) && !refused
        })
}

/// Headers of every page and file.
fn protect(answer: &mut HeaderMap, via: Via, request: &HeaderMap) {
    if let Ok(policy) = HeaderValue::try_from(content_security_policy(request, via.tls)) {
        answer.insert(CONTENT_SECURITY_POLICY, policy);
    }
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ];
    for (name, value) in fixed {
        answer.insert(name, HeaderValue::from_static(value));
    }
    if via.tls {
        answer.insert(
            STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
}

/// Nothing but the own host; no inline script or style. Older browsers do not count WebSockets of the own host as `'self'`.
fn content_security_policy(request: &HeaderMap, tls: bool) -> String {
    let socket = request
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| {
            host.len() <= 253
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        })
        .map(|host| format!(" {}://{host}", if tls { "wss" } else { "ws" }))
        .unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; \
         connect-src 'self'{socket}; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

fn brotli(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut output = Vec::new();
    {
        let mut encoder = brotli::CompressorWriter::new(&mut output, 64 * 1024, BROTLI_QUALITY, 22);
        encoder.write_all(bytes)?;
        encoder.flush()?;
    }
    Ok(output.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIA: Via = Via {
        peer: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        loopback: true,
        tls: false,
    };

    fn web() -> Web {
        let script = "console.log('many words');".repeat(100);
        let web = Web::from_files(
            [
                (
                    "index.html".to_owned(),
                    "text/html".to_owned(),
                    b"<!doctype html>".to_vec(),
                ),
                (
                    "assets/app-1a2b.js".to_owned(),
                    "text/javascript".to_owned(),
                    script.into_bytes(),
                ),
            ]
            .into_iter(),
        );
        web.compress();
        web
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_page_lets_nothing_in_but_its_own_host() {
        let response = web().page(VIA, &headers(&[(HOST, "meet.example:8443")]));
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .expect("text");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
            "{policy}"
        );
        assert!(
            policy.contains("connect-src 'self' ws://meet.example:8443;"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("https:"),
            "{policy}"
        );
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
        assert_eq!(
            response.headers()["cross-origin-opener-policy"],
            "same-origin"
        );
        assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!response.headers().contains_key(STRICT_TRANSPORT_SECURITY));
        let secure = web().page(
            Via { tls: true, ..VIA },
            &headers(&[(HOST, "meet.example")]),
        );
        assert!(
            secure.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .expect("text")
                .contains("wss://meet.example;")
        );
        assert!(secure.headers().contains_key(STRICT_TRANSPORT_SECURITY));
    }

    #[test]
    fn a_hostile_host_header_does_not_reach_the_policy() {
        for host in ["a; script-src *", "evil *", "x'y"] {
            let request = headers(&[])
                .into_iter()
                .filter_map(|(name, value)| name.map(|name| (name, value)))
                .chain([(HOST, HeaderValue::from_str(host).expect("value"))])
                .collect();
            assert!(
                content_security_policy(&request, false).contains("connect-src 'self';"),
                "{host}"
            );
        }
    }

    #[test]
    fn assets_are_compressed_as_the_browser_likes_and_kept_for_ever() {
        let web = web();
        for (accepted, expected) in [
            ("gzip, deflate, br", Some("br")),
            ("gzip", Some("gzip")),
            ("br;q=0, gzip", Some("gzip")),
            ("identity", None),
        ] {
            let response = web.asset("app-1a2b.js", VIA, &headers(&[(ACCEPT_ENCODING, accepted)]));
            assert_eq!(
                response
                    .headers()
                    .get(CONTENT_ENCODING)
                    .map(|value| value.to_str().expect("text")),
                expected,
                "{accepted}"
            );
            assert_eq!(response.headers()[CACHE_CONTROL], IMMUTABLE);
        }
        assert_eq!(
            web.asset("../index.html", VIA, &HeaderMap::new()).status(),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let web = web();
        let etag = web.page(VIA, &HeaderMap::new()).headers()[ETAG].clone();
        let again = web.page(VIA, &[(IF_NONE_MATCH, etag)].into_iter().collect());
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn without_a_built_client_the_page_says_how_to_build_it() {
        let response = Web::from_files(std::iter::empty()).page(VIA, &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(MISSING.contains("make web"));
    }
}
