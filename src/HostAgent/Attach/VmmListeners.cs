using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Attach;

/// <summary>Keeps one listening socket for each VM on this host that attaches by handoff.</summary>
public sealed partial class VmmListeners(
    VmTable table, DesiredState desired, AllowedPaths allowed, RefusalLog refusals, IOptions<AgentOptions> options,
    IServiceProvider services, TimeProvider time, ILogger<VmmListeners> logger) : PerVmService(table, desired)
{
    protected override Task PrepareAsync(CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(options.Value.VmmSockets, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return Task.CompletedTask;
    }

    protected override string? PathOf(DesiredVm desired) => desired.Attach.Kind == AttachKinds.Handoff
        ? desired.Attach.Socket ?? Path.Combine(options.Value.VmmSockets, $"{desired.Vm}.sock")
        : null;

    // The folder of the agent's own sockets is its own choice; all others the control plane's.
    private AllowedPlace? PlaceOf(string path, out string? whyNot)
    {
        whyNot = null;
        return Path.GetDirectoryName(path) == Path.TrimEndingDirectorySeparator(options.Value.VmmSockets)
            ? new AllowedPlace(FolderHandle.Open(options.Value.VmmSockets), Path.GetFileName(path), path)
            : allowed.Find(path, out whyNot);
    }

    // Again and again: the folder may come later than the VM, and whoever has the name, or the descriptors, may let go of them.
    protected override async Task RunAsync(VmEntry entry, string path, CancellationToken cancellationToken)
    {
        var backoff = new Backoff();
        string? said = null;
        try
        {
            while (true)
            {
                var problem = await ListenAsync(entry, path, said, cancellationToken);
                cancellationToken.ThrowIfCancellationRequested();
                said = problem;
                await Task.Delay(backoff.Next(), time, cancellationToken); // allowed: backoff between attempts
            }
        }
        catch (OperationCanceledException)
        {
            // The agent stops, or the VM no longer concerns this host.
        }
    }

    /// <param name="said">The problem of the attempt before: it is logged once.</param>
    /// <returns>Why nobody listens; null when it ended because it was cancelled.</returns>
    private async Task<string?> ListenAsync(VmEntry entry, string path, string? said, CancellationToken cancellationToken)
    {
        try
        {
            if (PlaceOf(path, out var whyNot) is not { } place)
            {
                if (said != whyNot)
                {
                    LogNotAllowed(entry.Vm, path, whyNot!);
                }

                return whyNot;
            }

            await new VmmListener(
                entry.Vm, place,
                (socket, token) => ActivatorUtilities.CreateInstance<HandoffConnection>(services, entry).RunAsync(socket, token),
                refusals, time, logger).RunAsync(cancellationToken);
            return null;
        }
        catch (Exception exception) when (exception is IOException or System.Net.Sockets.SocketException or UnauthorizedAccessException or ArgumentException or LinuxException)
        {
            if (said != exception.Message)
            {
                LogCannotListen(exception, entry.Vm, path);
            }

            return exception.Message;
        }
    }

    [LoggerMessage(1231, LogLevel.Warning, "VM {Vm}: the control plane names the socket {Path}, which lies in no folder of Agent:AllowedPaths that is there ({Code}); the VM cannot be attached, and it is tried again")]
    private partial void LogNotAllowed(string vm, string path, string code);

    [LoggerMessage(1232, LogLevel.Error, "VM {Vm}: cannot listen on {Path}; it is tried again")]
    private partial void LogCannotListen(Exception exception, string vm, string path);
}
