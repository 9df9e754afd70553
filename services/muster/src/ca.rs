//! `muster ca`: the certificate authority, as it is; replaced; and a root of one's own, made and used offline.

use std::io::Read;
use std::path::Path;

use muster_auth::domain::custody::AuthorityKey;
use muster_auth::domain::founding;
use muster_auth::domain::offline::{self, OfflineError};
use muster_auth::join::pem;
use muster_kit::{clock, files};
use muster_proto::auth::v1 as auth;
use muster_proto::auth::v1::SignerPurpose as WirePurpose;
use muster_proto::auth::v1::rotate_certificate_authority_request::Tier as WireTier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::cli::{CaCommand, CaTier, Output, Place, SignerPurpose};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::init;
use crate::render::json;

/// Requests to sign: a master has two at a time.
const REQUEST_BYTES: u64 = 64 * 1024;

pub async fn run(place: &Place, output: Output, command: CaCommand) -> Result<Exit, Failure> {
    match command {
        CaCommand::Show => show(&Session::open(place).await?, output).await,
        CaCommand::Rotate { tier } => rotate(&Session::open(place).await?, output, tier).await,
        CaCommand::Withdraw { purposes } => withdraw(&Session::open(place).await?, output, &purposes).await,
        CaCommand::Import { file } => import(&Session::open(place).await?, output, &file).await,
        CaCommand::MakeRoot { out, key } => make_root(&out, &key),
        CaCommand::Sign { root, key, old_root } => sign(&root, &key, old_root.as_deref()),
    }
}

async fn show(session: &Session, output: Output) -> Result<Exit, Failure> {
    let request = auth::GetCertificateAuthorityRequest {};
    let shown = session.authorities().get_certificate_authority(request).await;
    print(output, &shown.map_err(session.failed("cannot look at the authority"))?.into_inner());
    Ok(Exit::Ok)
}

async fn rotate(session: &Session, output: Output, tier: CaTier) -> Result<Exit, Failure> {
    let tier = match tier {
        CaTier::Issuing => WireTier::Issuing,
        CaTier::Root => WireTier::Root,
        CaTier::Signers => WireTier::Signers,
    };
    let request = auth::RotateCertificateAuthorityRequest { tier: tier.into() };
    let rotated = session.authorities().rotate_certificate_authority(request).await;
    let rotated = rotated.map_err(session.failed("cannot replace the authority"))?.into_inner();
    print(output, &rotated);
    if output == Output::Table && !rotated.certificate_requests.is_empty() {
        eprintln!("The root is elsewhere. Have the requests signed there, then: muster ca import FILE");
    }
    Ok(Exit::Ok)
}

async fn withdraw(session: &Session, output: Output, purposes: &[SignerPurpose]) -> Result<Exit, Failure> {
    let wire = |purpose: &SignerPurpose| match purpose {
        SignerPurpose::Tasks => WirePurpose::Tasks,
        SignerPurpose::Tickets => WirePurpose::Tickets,
        SignerPurpose::Receipts => WirePurpose::Receipts,
    };
    let purposes = purposes.iter().map(|purpose| wire(purpose).into()).collect();
    let withdrawn = session.authorities().withdraw_signers(auth::WithdrawSignersRequest { purposes }).await;
    print(output, &withdrawn.map_err(session.failed("cannot withdraw the keys"))?.into_inner());
    if output == Output::Table {
        eprintln!(
            "Withdrawn. Hosts hear it within half a minute; whoever is away hears it first when it is back."
        );
    }
    Ok(Exit::Ok)
}

async fn import(session: &Session, output: Output, file: &Path) -> Result<Exit, Failure> {
    let certificates = init::certificates(file)?.into_iter().map(Into::into).collect();
    let request = auth::ImportCertificatesRequest { certificates };
    let imported = session.authorities().import_certificates(request).await;
    print(output, &imported.map_err(session.failed("cannot take in the certificates"))?.into_inner());
    Ok(Exit::Ok)
}

fn print(output: Output, shown: &auth::CertificateAuthority) {
    let section = |label, ders: &[prost::bytes::Bytes]| -> String {
        ders.iter().map(|der| pem::section(label, der)).collect()
    };
    let parts = [
        ("roots", section("CERTIFICATE", &shown.roots)),
        ("issuingAuthorities", section("CERTIFICATE", &shown.issuing_authorities)),
        ("deviceAuthorities", section("CERTIFICATE", &shown.device_authorities)),
        ("crossCertificates", section("CERTIFICATE", &shown.cross_certificates)),
        ("signers", section("CERTIFICATE", &shown.signers)),
        ("withdrawals", section("CERTIFICATE", &shown.withdrawals)),
        ("certificateRequests", section("CERTIFICATE REQUEST", &shown.certificate_requests)),
    ];
    match output {
        Output::Json => json::print("CertificateAuthority", parts.map(|(name, pem)| (name, pem.into()))),
        Output::Table => parts.iter().filter(|(_, pem)| !pem.is_empty()).for_each(|(name, pem)| {
            println!("# {name}");
            print!("{pem}");
        }),
    }
}

/// A root's key and certificate, for a computer that stays off the network.
fn make_root(out: &Path, key: &Path) -> Result<Exit, Failure> {
    let made = AuthorityKey::draw()
        .and_then(|key| founding::root(key, clock::wall(), &mut rand::rng()))
        .map_err(|error| Failure::internal("cannot make a root", error))?;
    for file in [out, key] {
        if file.exists() {
            let why = "it is there already, and a root is never replaced by accident";
            return Err(Failure::usage(format!("will not write {}", file.display()), why));
        }
    }
    let key_pem = pem::section("PRIVATE KEY", &made.issuer.key().at_rest());
    let written = files::write_private(key, key_pem.as_bytes())
        .and_then(|()| files::write_private(out, pem::section("CERTIFICATE", &made.certificate).as_bytes()));
    written.map_err(|error| Failure::usage("cannot keep the root", error))?;
    eprintln!("Keep {} offline: whoever has it is this network.", key.display());
    Ok(Exit::Ok)
}

/// Signs the requests on stdin by a root that is here; root and certificates go to stdout.
fn sign(root: &Path, key: &Path, old_root: Option<&Path>) -> Result<Exit, Failure> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read {}", path.display()), error)
    };
    let certificate = CertificateDer::from_pem_file(root).map_err(|error| unreadable(root, &error))?;
    let private = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let mut text = String::new();
    let read = std::io::stdin().take(REQUEST_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::usage("cannot read the requests", error))?;
    let failed = |error: OfflineError| Failure::usage("cannot sign", error);
    let signer = offline::Root::open(&certificate, private.secret_pkcs8_der()).map_err(failed)?;
    let mut signed = vec![certificate.to_vec()];
    for request in rustls_pki_types::CertificateSigningRequestDer::pem_slice_iter(text.as_bytes()) {
        let request = request.map_err(|error| Failure::usage("cannot read the requests", error))?;
        signed.push(signer.certify(&request, clock::wall(), &mut rand::rng()).map_err(failed)?);
    }
    if let Some(old) = old_root {
        let old_der = CertificateDer::from_pem_file(old).map_err(|error| unreadable(old, &error))?;
        signed.push(signer.vouch_for(&old_der, clock::wall(), &mut rand::rng()).map_err(failed)?);
    }
    signed.iter().for_each(|der| print!("{}", pem::section("CERTIFICATE", der)));
    Ok(Exit::Ok)
}
