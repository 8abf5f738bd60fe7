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
    private readonly string[] _folders = [.. options.Value.AllowedPaths.Split(':', StringSplitOptions.RemoveEmptyEntries).Select(folder => folder.TrimEnd('/'))];

    public bool Allows(string path)
    {
        using var place = Find(path);
        return place is not null;
    }

    /// <summary>The place of a path, which the caller disposes; null when it lies in no allowed folder. The last part need not exist.</summary>
    public AllowedPlace? Find(string path)
    {
        var parts = path.Split('/');
        if (parts is not ["", _, ..] || parts[^1].Length == 0 || parts.Any(part => part is "." or "..") || path.Contains('\0', StringComparison.Ordinal))
        {
            return null;
        }

        var parent = path[..path.LastIndexOf('/')];
        return _folders.Select(folder => Open(folder, parent)).OfType<FolderHandle>().Select(folder => new AllowedPlace(folder, parts[^1], path)).FirstOrDefault();
    }

    private static FolderHandle? Open(string allowed, string parent)
    {
        try
        {
            using var root = FolderHandle.Open(allowed.Length == 0 ? "/" : allowed);
            // As it is set, and as the kernel calls it.
            return new[] { allowed, root.Location?.TrimEnd('/') }
                .Where(name => name is not null && (parent == name || parent.StartsWith(name + "/", StringComparison.Ordinal)))
                .Select(name => root.OpenFolder(parent[name!.Length..].Trim('/')))
                .FirstOrDefault();
        }
        catch (LinuxException)
        {
            // The folder is not there, or the way to it leads elsewhere.
            return null;
        }
    }
}

/// <summary>A name in a folder that is held open.</summary>
/// <param name="Text">The path as it was given, for messages.</param>
public sealed record AllowedPlace(FolderHandle Folder, string Name, string Text) : IDisposable
{
    public void Dispose() => Folder.Dispose();
}
