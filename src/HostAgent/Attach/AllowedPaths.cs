using Fleet.HostAgent.Options;
using Fleet.Linux;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Attach;

/// <summary>Which paths the control plane may name on this host (Agent:AllowedPaths).</summary>
public sealed class AllowedPaths(IOptions<AgentOptions> options)
{
    private readonly string[] _folders = [.. options.Value.AllowedPaths
        .Split(':', StringSplitOptions.RemoveEmptyEntries)
        .Select(Canonical).OfType<string>()];

    /// <summary>Whether the path lies in an allowed folder, after symbolic links and <c>..</c> are resolved. The last part need not exist.</summary>
    public bool Allows(string path) =>
        Path.IsPathRooted(path)
        && Path.GetFileName(path) is { Length: > 0 } name && name is not ("." or "..")
        && Canonical(Path.GetDirectoryName(path)!) is { } parent
        && new FileInfo(Path.Combine(parent, name)).LinkTarget is null
        && _folders.Any(folder => parent == folder || parent.StartsWith(folder == "/" ? "/" : folder + "/", StringComparison.Ordinal));

    // The kernel's own answer: the link of an open descriptor has no links or dots left in it.
    private static string? Canonical(string folder)
    {
        try
        {
            using var descriptor = FileDescriptor.OpenRead(folder);
            return Directory.Exists(folder) ? descriptor.LinkTarget : null;
        }
        catch (LinuxException)
        {
            return null;
        }
    }
}
