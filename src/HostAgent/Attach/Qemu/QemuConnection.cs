using System.Net.Sockets;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>One VM's QEMU: connects to its QMP socket, attaches, and follows its events; again and again, for as long as the VM is here.</summary>
public sealed partial class QemuConnection(
    VmEntry entry, string socket, AllowedPaths allowed, Attachments attachments, QemuOpener opener, GateKeeper gate, WorkSet work, ReportSpool spool, HeldBack held, PoisonIntake intake,
    AccessObserver observer, QemuMeter meter,
    IOptions<AgentOptions> options, TimeProvider time, ILogger<QemuConnection> logger)
{
    private readonly LogPace _defects = new(time);
    private string? _lastSaid;

    /// <summary>Ends when it is cancelled. Never throws for what QEMU does.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var backoff = new Backoff();
        var evidence = new QemuEvidence(entry, spool, held, intake, observer, meter, time, logger);
        var storing = evidence.RunAsync(cancellationToken);
        try
        {
            while (true)
            {
                if (await TryAsync(evidence, cancellationToken))
                {
                    backoff.Reset();
                }

                // QEMU closes its socket by ending.
                work.Add(entry.Vm);
                await Task.Delay(backoff.Next(), time, cancellationToken); // allowed: backoff between attempts
            }
        }
        catch (OperationCanceledException)
        {
            // The agent stops, or the VM no longer concerns this host. What is armed stays armed.
        }

        await storing;
    }

    private async Task<bool> TryAsync(QemuEvidence evidence, CancellationToken cancellationToken)
    {
        var attached = false;
        try
        {
            using var client = await ConnectAsync(cancellationToken);
            using var closed = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            await evidence.FollowAsync(Log());
            var reading = client.RunAsync(line => OnEvent(line, evidence), closed.Token);
            try
            {
                await client.ExecuteAsync("qmp_capabilities", null, cancellationToken);
                await AttachAsync(client, cancellationToken);
                attached = true;
                Tell(null, "attached");
                await reading;
            }
            finally
            {
                await closed.CancelAsync();
                // Its failure, if any, was seen above or is of no matter any more.
                await Task.WhenAny(reading);
                await evidence.FollowAsync(null);
            }
        }
        catch (QemuRejectedException rejected)
        {
            Tell(rejected.Code, rejected.Message);
        }
        catch (InvalidDataException damaged)
        {
            // The journal's record of this VM: which process was bound is not known, so none may be bound anew.
            Tell("state-folder-failed", damaged.Message);
        }
        catch (Exception exception) when (exception is IOException or LinuxException or SocketException)
        {
            Tell("qmp-failed", exception.Message);
        }
#pragma warning disable CA1031 // A defect, or a peer that answers nonsense, must not end the attempts.
        catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
        {
            if (_defects.MayTell(entry.Vm) is { } silent)
            {
                LogDefect(exception, entry.Vm, silent);
            }

            Tell("qmp-failed", exception.Message);
        }

        return attached;
    }

    // Each time anew: the folder may come later than the VM, and what was allowed may have been replaced. Nothing is followed on the way.
    private async Task<QmpClient> ConnectAsync(CancellationToken cancellationToken)
    {
        using var place = allowed.Find(socket, out var whyNot) ?? throw new QemuRejectedException(
            whyNot!, whyNot == AllowedPaths.FolderMissing ? $"the folder of {socket} is not there" : $"{socket} lies in no folder of Agent:AllowedPaths");
        try
        {
            using var file = place.Folder.OpenSocket(place.Name);
            return await QmpClient.ConnectAsync(file.ProcPath, time, cancellationToken, socket);
        }
        catch (LinuxException exception) when (exception.Errno is Errno.ELOOP or Errno.EXDEV)
        {
            throw new QemuRejectedException(AllowedPaths.NotAllowed, $"{socket} is a link");
        }
        catch (Exception exception) when (exception is LinuxException { Errno: Errno.ENOENT } or InvalidDataException)
        {
            throw new QemuRejectedException("qmp-unreachable", $"{socket}: {exception.Message}");
        }
    }

    private async Task AttachAsync(QmpClient client, CancellationToken cancellationToken)
    {
        var ram = await QemuRam.QueryAsync(client, cancellationToken);
        Pidfd? pidfd = null;
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            if (entry.Desired is not { Attach.Kind: AttachKinds.Qemu } desired)
            {
                throw new QemuRejectedException("unknown-vm", "the VM does not concern this host, or attaches otherwise");
            }

            pidfd = client.OpenPeer();
            var vmm = ProcessIdentity.Of(client.Peer.Pid);
            if (vmm is null || pidfd.HasExited())
            {
                throw new QemuRejectedException("vmm-ended", "the QEMU process has ended");
            }

            if (entry.Attachment is { } present && !present.Process.HasExited())
            {
                if (present.Vmm != vmm)
                {
                    throw new QemuRejectedException("already-attached", $"VM {entry.Vm} is attached to VMM process {present.Vmm.Pid}, which lives");
                }

                if (IsSame(present, desired, ram))
                {
                    return;
                }
            }

            using var claim = attachments.Claim(vmm, entry.Vm, out var holder)
                ?? throw new QemuRejectedException("already-attached", $"QEMU process {vmm.Pid} is VM {holder}'s");

            // On a thread of its own: the process is stopped and asked by system calls.
            var opened = await Task.Run(() => opener.Open(desired, ram, vmm, pidfd), cancellationToken);
            pidfd = null;
            Attach(opened);
        }
        finally
        {
            entry.Gate.Release();
            pidfd?.Dispose();
        }
    }

    private void Attach(Attachment opened)
    {
        try
        {
            attachments.Attach(entry, opened);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            opened.Dispose();
            throw new QemuRejectedException("state-folder-failed", exception.Message);
        }
    }

    // Taken over from the journal, or the connection was lost and the process lives on: its descriptors are borrowed already.
    private static bool IsSame(Attachment present, DesiredVm desired, QemuRam ram) =>
        present.Kind == AttachKinds.Qemu
        && QemuLayout.Place(desired.Memory, ram).Select(place => (place.HostVirtualAddress, place.Region.Bytes))
            .SequenceEqual(present.Layout.Regions.Select(region => (region.HostVirtualAddress, region.Bytes)));

    private void OnEvent(QmpLine line, QemuEvidence evidence)
    {
        switch (line.Event)
        {
            case "MEMORY_FAILURE":
                evidence.Post(line);
                break;
            case "RESET" or "BALLOON_CHANGE" or "MEMORY_DEVICE_SIZE_CHANGE" or "SHUTDOWN":
                // At a reset QEMU maps pages anew that had failed: their markers and registration are gone. A balloon takes memory away.
                work.Add(entry.Vm);
                break;
        }
    }

    private QemuLog? Log() => options.Value.QemuLogFolder is { } folder ? new QemuLog(Path.Combine(folder, $"{entry.Vm}.log")) : null;

    // Once for each change: a QEMU that is not there is looked for every few seconds.
    private void Tell(string? code, string reason)
    {
        entry.NotAttached = code == "qmp-unreachable" ? null : code;
        if (code is not null)
        {
            gate.TellObstacle(entry.Desired, code, reason);
        }

        if (_lastSaid == (code ?? string.Empty))
        {
            return;
        }

        _lastSaid = code ?? string.Empty;
        if (code is null)
        {
            LogConnected(entry.Vm, socket);
        }
        else if (code == "qmp-unreachable")
        {
            LogWaiting(entry.Vm, reason);
        }
        else
        {
            LogRejected(entry.Vm, code, reason);
        }
    }

    [LoggerMessage(2130, LogLevel.Information, "VM {Vm}: follows QEMU's events on {Socket}")]
    private partial void LogConnected(string vm, string socket);

    [LoggerMessage(2131, LogLevel.Warning, "VM {Vm}: its QEMU is not attached, and is tried again: {Code}, {Reason}")]
    private partial void LogRejected(string vm, string code, string reason);

    [LoggerMessage(2132, LogLevel.Information, "VM {Vm}: waiting for its QEMU: {Reason}")]
    private partial void LogWaiting(string vm, string reason);

    [LoggerMessage(2133, LogLevel.Error, "VM {Vm}: the conversation with its QEMU ended with a defect; it is tried again (and {Silent} more like it before)")]
    private partial void LogDefect(Exception exception, string vm, long silent);
}
