using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Startup;

/// <summary>
/// With <c>Fleet:ClientCertificateCa</c>, https endpoints ask for a client certificate of that authority: beside the token, not
/// instead of it. Everything else of TLS is Kestrel's own configuration (<c>Kestrel:Endpoints:…</c>).
/// </summary>
internal sealed class ClientCertificates(IOptions<FleetOptions> options) : IConfigureOptions<KestrelServerOptions>
{
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2";

    public void Configure(KestrelServerOptions kestrel)
    {
        if (options.Value.ClientCertificateCa is not { } path)
        {
            return;
        }

        var authorities = Load(path);
        kestrel.ConfigureHttpsDefaults(https =>
        {
            https.ClientCertificateMode = ClientCertificateMode.RequireCertificate;
            https.ClientCertificateValidation = (certificate, sent, _) => IsTrusted(certificate, sent, authorities);
        });
    }

    /// <summary>Judged against these authorities alone: those of the system vouch for servers, not for hosts of this fleet.</summary>
    private static bool IsTrusted(X509Certificate2 certificate, X509Chain? sent, X509Certificate2Collection authorities)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(ClientAuthentication));
        if (sent is not null)
        {
            chain.ChainPolicy.ExtraStore.AddRange(sent.ChainPolicy.ExtraStore);
        }

        return chain.Build(certificate);
    }

    private static X509Certificate2Collection Load(string path)
    {
        try
        {
            var authorities = new X509Certificate2Collection();
            authorities.ImportFromPemFile(path);
            return authorities.Count > 0 ? authorities : throw new CryptographicException("there is no certificate in it.");
        }
        catch (CryptographicException exception)
        {
            throw new IOException($"Fleet:ClientCertificateCa '{path}' cannot be used: {exception.Message}", exception);
        }
    }
}
