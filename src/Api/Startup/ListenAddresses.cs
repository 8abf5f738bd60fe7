using System.Net;
using Fleet.Data.Storage;

namespace Fleet.Api.Startup;

/// <summary>Where the server listens: loopback unless said otherwise, and never in the clear beyond it by accident.</summary>
public static class ListenAddresses
{
    public const string Default = "http://127.0.0.1:5480";

    public static void Configure(WebApplicationBuilder builder)
    {
        if (Configured(builder.Configuration).Count == 0)
        {
            builder.WebHost.UseUrls(Default);
        }
    }

    /// <exception cref="StoreException">An address would carry tokens in the clear beyond this machine.</exception>
    public static void RefusePlainHttp(IConfiguration configuration, FleetOptions options)
    {
        var open = Configured(configuration).Where(IsOpenPlainHttp).ToList();
        if (open.Count > 0 && !options.AllowPlainHttp)
        {
            throw new StoreException(
                $"{string.Join(", ", open)}: plain http beyond loopback would send tokens in the clear. "
                + "Use https or a loopback address, or set Fleet:AllowPlainHttp=true where something else protects the network.");
        }
    }

    private static List<string> Configured(IConfiguration configuration)
    {
        var urls = (configuration["urls"] ?? string.Empty).Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).ToList();
        if (urls.Count == 0)
        {
            urls.AddRange((configuration["http_ports"] ?? string.Empty)
                .Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
                .Select(port => $"http://*:{port}"));
            urls.AddRange((configuration["https_ports"] ?? string.Empty)
                .Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
                .Select(port => $"https://*:{port}"));
        }

        urls.AddRange(configuration.GetSection("Kestrel:Endpoints").GetChildren().Select(endpoint => endpoint["Url"]).OfType<string>());
        return urls;
    }

    private static bool IsOpenPlainHttp(string url)
    {
        var address = BindingAddress.Parse(url);
        if (!string.Equals(address.Scheme, "http", StringComparison.OrdinalIgnoreCase) || address.IsUnixPipe)
        {
            return false;
        }

        return !string.Equals(address.Host, "localhost", StringComparison.OrdinalIgnoreCase)
            && !(IPAddress.TryParse(address.Host.Trim('[', ']'), out var ip) && IPAddress.IsLoopback(ip));
    }
}
