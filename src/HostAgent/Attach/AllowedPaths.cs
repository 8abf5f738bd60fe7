using Fleet.HostAgent.Options;
using Fleet.Linux;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// Which paths the control plane may name on this host (Agent:AllowedPaths). A folder of the setting may be reached by links, which are this
/// host's own; below it neither a link nor <c>..</c> is followed. What was checked is held open, so that nothing can be put in its place.
/// </summary>
public sealed class AllowedPaths(IOptions<AgentOptions> options)
{
    /// <summary>The path lies in no allowed folder, or the way to it leads through a link.</summary>
    public const string NotAllowed = "path-not-allowed";

    /// <summary>It would lie in one, but its folder is not there, or not yet.</summary>
    public const string FolderMissing = "folder-missing";

    private readonly string[] _folders = [.. options.Value.AllowedPaths.Split(':', StringSplitOptions.RemoveEmptyEntries).Select(folder => folder.TrimEnd('/'))];

    public bool Allows(string path)
    {
        using var place = Find(path);
        return place is not null;
    }

    /// <summary>The place of a path, which the caller disposes; null when it lies in no allowed folder. The last part need not exist.</summary>
    public AllowedPlace? Find(string path) => Find(path, out _);

    /// <param name="whyNot">Where there is no place: <see cref="NotAllowed"/> or <see cref="FolderMissing"/>, which become reasons in the VM's status.</param>
    public AllowedPlace? Find(string path, out string? whyNot)
    {
        whyNot = NotAllowed;
        var parts = path.Split('/');
        if (parts is not ["", _, ..] || parts[^1].Length == 0 || parts.Any(part => part is "." or "..") || path.Contains('\0', StringComparison.Ordinal))
        {
            return null;
        }

        var parent = path[..path.LastIndexOf('/')];
        foreach (var allowed in _folders)
        {
            var isBelow = IsBelow(allowed, parent);
            try
            {
                using var root = FolderHandle.Open(allowed.Length == 0 ? "/" : allowed);
                // As it is set, and as the kernel calls it.
                if (new[] { allowed, root.Location?.TrimEnd('/') }.FirstOrDefault(name => name is not null && IsBelow(name, parent)) is { } name)
                {
                    isBelow = true;
                    var place = new AllowedPlace(root.OpenFolder(parent[name.Length..].Trim('/')), parts[^1], path);
                    whyNot = null;
                    return place;
                }
            }
            catch (LinuxException exception)
            {
                // Not there, or the way to it leads elsewhere.
                whyNot = isBelow && exception.Errno == Errno.ENOENT ? FolderMissing : whyNot;
            }
        }

        return null;
    }

    private static bool IsBelow(string folder, string parent) => parent == folder || parent.StartsWith(folder + "/", StringComparison.Ordinal);
}

/// <summary>A name in a folder that is held open.</summary>
/// <param name="Text">The path as it was given, for messages.</param>
public sealed record AllowedPlace(FolderHandle Folder, string Name, string Text) : IDisposable
{
    public void Dispose() => Folder.Dispose();
}
