using Fleet.Contracts;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Options;

/// <summary>Collects every defect of the settings, so that one start shows them all.</summary>
public sealed class AgentOptionsValidator : IValidateOptions<AgentOptions>
{
    // sockaddr_un.sun_path holds 108 bytes with the terminating zero, and "/x.sock.new" must still fit.
    private const int LongestSocketFolder = 107 - 11;

    public ValidateOptionsResult Validate(string? name, AgentOptions options)
    {
        var errors = Errors(options).ToList();
        return errors.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(errors);
    }

    private static IEnumerable<string> Errors(AgentOptions options)
    {
        if (!ResourceId.IsValid(options.Host))
        {
            yield return "Agent:Host must be the host's id in the fleet: 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit.";
        }

        if (!Uri.TryCreate(options.ControlPlane, UriKind.Absolute, out var uri) || (uri.Scheme != Uri.UriSchemeHttp && uri.Scheme != Uri.UriSchemeHttps))
        {
            yield return "Agent:ControlPlane must be the control plane's address, such as http://127.0.0.1:5480.";
        }
        else if (uri.Scheme == Uri.UriSchemeHttp && !uri.IsLoopback && !options.AllowPlainHttp)
        {
            yield return "Agent:ControlPlane is plain http and not on loopback: use https, or set Agent:AllowPlainHttp=true.";
        }

        if (options.Policy is not ("marker" or "trap"))
        {
            yield return $"Agent:Policy '{options.Policy}' is unknown; use marker or trap.";
        }

        if (options.VerifySeconds is < 1 or > 3600)
        {
            yield return "Agent:VerifySeconds must lie between 1 and 3600.";
        }

        if (options.MapCountLimit < 0)
        {
            yield return "Agent:MapCountLimit must not be negative; 0 takes the kernel's vm.max_map_count.";
        }

        if (options.SpoolBytes < 64 * 1024)
        {
            yield return "Agent:SpoolBytes must be at least 65536.";
        }

        if (options.JoinToken is not null && options.JoinTokenFile is not null)
        {
            yield return "Set Agent:JoinToken or Agent:JoinTokenFile, not both.";
        }

        if (uri?.Scheme == Uri.UriSchemeHttp && (options.ControlPlaneCa ?? options.ClientCertificate) is not null)
        {
            yield return "Agent:ControlPlaneCa and Agent:ClientCertificate are for https, and Agent:ControlPlane is http.";
        }

        if (options.ClientCertificate is null != options.ClientKey is null)
        {
            yield return "Set Agent:ClientCertificate and Agent:ClientKey, both or neither.";
        }

        if (!DurationText.TryParse(options.CredentialLifetime, out var lifetime) || lifetime < TimeSpan.FromMinutes(10))
        {
            yield return $"Agent:CredentialLifetime '{options.CredentialLifetime}' must be a duration such as 30d, at least 10m.";
        }

        if (System.Text.Encoding.UTF8.GetByteCount(Path.GetFullPath(options.VmmSockets)) > LongestSocketFolder)
        {
            yield return $"Agent:VmmSocketFolder '{options.VmmSockets}' is too long for Unix socket paths: at most {LongestSocketFolder} bytes.";
        }

        if (options.Metrics is { } metrics && !(System.Net.IPEndPoint.TryParse(metrics, out var endpoint) && System.Net.IPAddress.IsLoopback(endpoint.Address)))
        {
            yield return $"Agent:Metrics '{metrics}' must be an address of loopback with a port, such as 127.0.0.1:9482: they are not protected.";
        }

        if (options.QemuLogFolder is { } logs && !Path.IsPathRooted(logs))
        {
            yield return $"Agent:QemuLogFolder: '{logs}' is not an absolute path.";
        }

        foreach (var path in options.AllowedPaths.Split(':', StringSplitOptions.RemoveEmptyEntries).Where(path => !Path.IsPathRooted(path)))
        {
            yield return $"Agent:AllowedPaths: '{path}' is not an absolute path.";
        }
    }
}
