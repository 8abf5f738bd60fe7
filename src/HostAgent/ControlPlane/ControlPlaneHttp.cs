using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Fleet.HostAgent.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>The connection to the control plane: whom it trusts, and the certificate it shows.</summary>
public static class ControlPlaneHttp
{
    /// <exception cref="InvalidOperationException">A certificate file cannot be used; the message says which.</exception>
    public static HttpClient Create(AgentOptions options)
    {
        var handler = new SocketsHttpHandler
        {
            PooledConnectionLifetime = TimeSpan.FromMinutes(5),
            ConnectTimeout = TimeSpan.FromSeconds(10),
            AllowAutoRedirect = false,
        };
        if (options.ControlPlaneCa is { } ca)
        {
            // Instead of the system's authorities, not beside them. The name in the certificate is checked as ever.
            handler.SslOptions.CertificateChainPolicy = TrustOnly(Load("Agent:ControlPlaneCa", ca, LoadAuthorities));
        }

        if (options is { ClientCertificate: { } certificate, ClientKey: { } key })
        {
            handler.SslOptions.ClientCertificateContext = Load("Agent:ClientCertificate", certificate, path => LoadClient(path, key));
        }

        // No overall timeout: the desired-state stream stays open, and the other calls have their own.
        return new HttpClient(handler) { BaseAddress = new Uri(options.ControlPlane), Timeout = Timeout.InfiniteTimeSpan };
    }

    /// <summary>What to tell of a failed connection; for TLS the reason is one exception further in.</summary>
    public static string Explain(Exception exception) => exception switch
    {
        HttpRequestException { InnerException: AuthenticationException tls } =>
            $"no trusted connection to the control plane: {tls.Message} Its certificate must be of an authority in Agent:ControlPlaneCa (or of the system) and name the address in Agent:ControlPlane",
        HttpRequestException { InnerException: IOException io } => $"{exception.Message} ({io.Message}) If the control plane asks for client certificates, see Agent:ClientCertificate",
        _ => exception.Message,
    };

    private static X509ChainPolicy TrustOnly(X509Certificate2Collection authorities)
    {
        var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
        policy.CustomTrustStore.AddRange(authorities);
        return policy;
    }

    private static X509Certificate2Collection LoadAuthorities(string path)
    {
        var authorities = new X509Certificate2Collection();
        authorities.ImportFromPemFile(path);
        return authorities.Count > 0 ? authorities : throw new CryptographicException("there is no certificate in it");
    }

    private static SslStreamCertificateContext LoadClient(string certificate, string key)
    {
        // The first certificate is the agent's; what follows leads to its authority.
        var chain = LoadAuthorities(certificate);
        chain.RemoveAt(0);
        return SslStreamCertificateContext.Create(X509Certificate2.CreateFromPemFile(certificate, key), chain, offline: true);
    }

    private static T Load<T>(string option, string path, Func<string, T> load)
    {
        try
        {
            return load(path);
        }
        catch (Exception exception) when (exception is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new InvalidOperationException($"{option} '{path}' cannot be used: {exception.Message}", exception);
        }
    }
}
