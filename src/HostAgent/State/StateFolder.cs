using Fleet.HostAgent.Options;
using Fleet.Linux;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.State;

/// <summary>The agent's folder on disk, held by one process at a time.</summary>
public sealed class StateFolder : IDisposable
{
    private const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly FileStream _lock;

    public StateFolder(IOptions<AgentOptions> options)
    {
        Root = Path.GetFullPath(options.Value.StateFolder);
        Desired = Make("desired");
        Attached = Make("attached");
        Spool = Make("spool");
        Gate = Make("gate");
        SyncRoot();
        try
        {
            // FileShare.None is an advisory flock(2) on Linux, dropped by the kernel however the process ends. For reading: a file that is
            // open for writing keeps its file system from being remounted read-only.
            _lock = new FileStream(Path.Combine(Root, "lock"), FileMode.OpenOrCreate, FileAccess.Read, FileShare.None);
        }
        catch (IOException exception) when (exception.HResult == (int)Errno.EAGAIN)
        {
            throw new InvalidOperationException($"another host agent uses the state folder {Root}; stop it, or set Agent:StateFolder to a folder of its own", exception);
        }

        try
        {
            StateFormat.Claim(Root);
            RemoveUnfinished();
        }
        catch
        {
            _lock.Dispose();
            throw;
        }
    }

    public string Root { get; }

    public string Desired { get; }

    public string Attached { get; }

    public string Spool { get; }

    public string Gate { get; }

    public string CredentialFile => Path.Combine(Root, "credential");

    public void Dispose() => _lock.Dispose();

    private void SyncRoot()
    {
        try
        {
            DurableFile.SyncFolder(Root);
        }
        catch (IOException)
        {
            // Failing: what is in it can still be read, and VMMs be taken over by it. Whatever is to be written from now on says so itself.
        }
    }

    private void RemoveUnfinished()
    {
        try
        {
            foreach (var folder in new[] { Root, Desired, Attached, Spool, Gate })
            {
                DurableFile.RemoveUnfinished(folder);
            }
        }
        catch (IOException)
        {
            // Read-only: they are in nobody's way.
        }
    }

    private string Make(string name)
    {
        Directory.CreateDirectory(Root, Private);
        return Directory.CreateDirectory(Path.Combine(Root, name), Private).FullName;
    }
}
