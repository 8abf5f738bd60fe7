using Fleet.Api.Agents;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Fleet.Api.Startup;

/// <summary>How much, and how slowly, anybody may send. A route that takes more says so with <see cref="RequestSizeLimit"/>.</summary>
public static class RequestLimits
{
    /// <summary>What a request may hold that does not carry lists of pages.</summary>
    public const long SmallBody = 64 * 1024;

    /// <summary>For lists of pages: 10,000 of them are about 1.5 MB.</summary>
    public const long LargeBody = 4 * 1024 * 1024;

    /// <summary>Before anybody is known: a join token and a hash.</summary>
    public const long AnonymousBody = 4 * 1024;

    /// <summary>A body that comes slower than this, after <see cref="Grace"/>, ends its connection: one byte at a time holds nothing open.</summary>
    public const double SlowestBytesPerSecond = 240;

    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Headers = TimeSpan.FromSeconds(10);

    public static void Configure(KestrelServerOptions kestrel)
    {
        kestrel.AddServerHeader = false;
        kestrel.Limits.MaxRequestBodySize = LargeBody;
        kestrel.Limits.MinRequestBodyDataRate = new MinDataRate(SlowestBytesPerSecond, Grace);
        kestrel.Limits.RequestHeadersTimeout = Headers;
        kestrel.Limits.MaxRequestHeadersTotalSize = 32 * 1024;
        kestrel.Limits.MaxRequestHeaderCount = 64;
    }
}
