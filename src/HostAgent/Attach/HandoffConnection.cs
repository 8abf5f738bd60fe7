using System.Net.Sockets;
using System.Text.Json;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Fleet.Linux;
using Fleet.Linux.Sockets;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Attach;

/// <summary>One connection of a VMM: the handoff, then its events until it goes away.</summary>
public sealed class HandoffConnection(
    VmEntry entry, Attachments attachments, WorkSet work, ReportSpool spool, HeldBack held, RefusalLog refusals, GateKeeper gate, PoisonIntake intake,
    AccessObserver observer, IOptions<AgentOptions> options, TimeProvider time)
{
    private static readonly TimeSpan HandoffTimeout = TimeSpan.FromSeconds(10);

    /// <summary>Ends when the VMM goes away, breaks the protocol, or the agent stops. Never throws for what the peer does.</summary>
    public async Task RunAsync(Socket socket, CancellationToken cancellationToken)
    {
        var reader = new HandoffLineReader(socket);
        using var writer = new AgentLineWriter(socket);
        try
        {
            var attachment = await AttachAsync(socket, reader, cancellationToken);
            await ServeAsync(attachment, reader, writer, cancellationToken);
        }
        catch (HandoffRejectedException rejected)
        {
            AgentMeter.HandoffsRefused.Add(1, AgentMeter.Label("code", rejected.Code));
            refusals.Refused(entry.Vm, rejected.Code, rejected.Message);
            gate.TellObstacle(entry.Desired, rejected.Code, rejected.Message);
            await TrySendAsync(writer, new AgentLine(AgentLine.Rejected, 0, rejected.Code, rejected.Message), cancellationToken);
        }
        catch (Exception exception) when (exception is InvalidDataException or LinuxException or SocketException or IOException
            || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            refusals.Closed(entry.Vm, exception.Message);
        }
        catch (OperationCanceledException)
        {
            // The agent stops.
        }
        finally
        {
            // A VMM often closes its socket by ending.
            work.Add(entry.Vm);
        }
    }

    private async Task<Attachment> AttachAsync(Socket socket, HandoffLineReader reader, CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(HandoffTimeout, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        Linux.Processes.Pidfd? pidfd = null;
        var taken = false;
        try
        {
            var line = await reader.ReadAsync(HandoffProtocol.MaximumDescriptors, either.Token)
                ?? throw new HandoffRejectedException("malformed", "the socket was closed before the handoff message ended");
            var peer = UnixPeer.Of(socket);
            pidfd = UnixPeer.OpenPidfd(socket);

            await entry.Gate.WaitAsync(either.Token);
            try
            {
                var desired = entry.Desired ?? throw new HandoffRejectedException("unknown-vm", "the VM does not concern this host");
                var message = HandoffValidator.Parse(line.Span);
                HandoffValidator.Validate(message, desired, peer, reader.Descriptors.Count, options.Value.EnforcementPolicy, EnforcementTable.OfThisHost);
                RequireFree(message.VmmPid);
                RequireOwn(reader.Descriptors);
                var opened = HandoffOpener.Open(message, desired, pidfd, reader.Descriptors, attachments.BoundMemoryInstance);
                if (entry.Attachment is { } present && IsSame(present, opened))
                {
                    Bind(present, message);
                    return present;
                }

                opened.IncomingFor = HandoffIncoming.MigrationOf(message, desired, options.Value.Host);
                opened.MayHaveRun = message.State == VmmStates.Running;
                attachments.Attach(entry, opened);
                taken = true;
                Bind(opened, message);
                return opened;
            }
            finally
            {
                entry.Gate.Release();
            }
        }
        finally
        {
            if (!taken)
            {
                pidfd?.Dispose();
                reader.Descriptors.ForEach(descriptor => descriptor.Dispose());
            }
        }
    }

    // A new connection: what was said on the one before counts no more.
    private static void Bind(Attachment attachment, HandoffMessage message)
    {
        attachment.Channel = attachment.HasBarrier
            ? new VmmChannel(attachment.Layout) { State = new VmmState(VmmState.StateType, message.State ?? VmmStates.Failed, message.StreamTarget, message.Undelivered, LastEvent: message.LastEvent) }
            : null;
        attachment.Zapper = message.Capabilities?.Contains(VmmCapabilities.Zaps) == true ? new VmmZapper() : null;
        HandoffIncoming.TakeHoles(attachment);
    }

    private void RequireFree(int pid)
    {
        if (entry.Attachment is { } other && other.Vmm.Pid != pid && !other.Process.HasExited())
        {
            throw new HandoffRejectedException("already-attached", $"VM {entry.Vm} is attached to VMM process {other.Vmm.Pid}, which lives");
        }
    }

    // Arming this VM would be arming the other one's memory.
    private void RequireOwn(IReadOnlyList<FileDescriptor> descriptors)
    {
        if (attachments.HolderOf(descriptors, entry.Vm) is { } holder)
        {
            throw new HandoffRejectedException("already-attached", $"a descriptor is of the memory of VM {holder}, which is attached");
        }
    }

    // The same process connects again after the agent or the connection went away: its descriptors are borrowed already.
    private static bool IsSame(Attachment present, Attachment opened) =>
        present.Vmm == opened.Vmm && present.MemoryInstance == opened.MemoryInstance
        && present.UserfaultfdNumber == opened.UserfaultfdNumber
        && present.Layout.Regions.Select(Shape).SequenceEqual(opened.Layout.Regions.Select(Shape));

    private static object Shape(GuestRegion region) =>
        (region.GuestPhysicalAddress, region.Bytes, region.HostVirtualAddress, region.PageBytes, region.Backing.Kind, region.Backing.Number, region.Backing.Offset);

    private async Task ServeAsync(Attachment attachment, HandoffLineReader reader, AgentLineWriter writer, CancellationToken cancellationToken)
    {
        using var closed = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var pump = new VmmEventPump(entry, attachment, writer, spool, held, intake, observer, time);
        var channel = attachment.Channel;
        var zapper = attachment.Zapper as VmmZapper;
        var announced = Task.WhenAll(
            AnnounceAsync(attachment, writer, closed.Token),
            TellAsync(channel?.RunAsync(writer, closed.Token)),
            TellAsync(zapper?.RunAsync(writer, closed.Token)));
        var pumped = pump.RunAsync(cancellationToken);
        try
        {
            while (await reader.ReadAsync(0, cancellationToken) is { } line)
            {
                if (zapper is not null && ParseZapped(line.Span) is { } zapped)
                {
                    zapper.Take(zapped);
                    continue;
                }

                if (channel is not null && ParseState(line.Span) is { } state)
                {
                    HandoffIncoming.RequireSound(state.StreamTarget, state.Undelivered, "malformed-event");
                    // What it says is taken in at the next look, under the gate.
                    channel.State = state;
                    work.Add(entry.Vm);
                    continue;
                }

                await pump.PostAsync(Parse(line.Span, attachment), cancellationToken);
            }
        }
        finally
        {
            pump.Complete();
            zapper?.Close();
            if (attachment.Channel == channel)
            {
                attachment.Channel = null;
            }

            if (attachment.Zapper == zapper)
            {
                attachment.Zapper = null;
            }

            await closed.CancelAsync();
            await announced;
            await pumped;
        }
    }

    private static async Task TellAsync(Task? lines)
    {
        try
        {
            await (lines ?? Task.CompletedTask);
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException)
        {
            // The connection ended; the next one is told anew.
        }
    }

    // The VMM learns that it is attached only when every page known for its VM is armed.
    private async Task AnnounceAsync(Attachment attachment, AgentLineWriter writer, CancellationToken cancellationToken)
    {
        try
        {
            Task armed;
            await entry.Gate.WaitAsync(cancellationToken);
            try
            {
                armed = entry.WhenArmedAsync();
            }
            finally
            {
                entry.Gate.Release();
            }

            work.Add(entry.Vm);
            await armed.WaitAsync(cancellationToken);
            await writer.SendAsync(new AgentLine(AgentLine.Attached, spool.LastEvent(attachment.Vmm), null, null), cancellationToken);
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException)
        {
            // The connection ended first, or another VMM took its place.
        }
    }

    private static VmmState? ParseState(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, HandoffJson.Default.VmmState) is { Type: VmmState.StateType } state ? state : null;
        }
        catch (JsonException)
        {
            // Not a state; an event, or the protocol is broken, which is said there.
            return null;
        }
    }

    private static VmmZapped? ParseZapped(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, HandoffJson.Default.VmmZapped) is { Type: VmmZapped.ZappedType } zapped ? zapped : null;
        }
        catch (JsonException)
        {
            // Another kind of line.
            return null;
        }
    }

    private static VmmEvent Parse(ReadOnlySpan<byte> line, Attachment attachment)
    {
        try
        {
            if (JsonSerializer.Deserialize(line, HandoffJson.Default.VmmEvent) is { } vmmEvent && VmmEventReports.IsValid(vmmEvent, attachment.Layout))
            {
                return vmmEvent;
            }
        }
        catch (JsonException)
        {
            // Answered below.
        }

        throw new HandoffRejectedException("malformed-event", "a line is not an event of this VM's memory");
    }

    private static async Task TrySendAsync(AgentLineWriter writer, AgentLine line, CancellationToken cancellationToken)
    {
        try
        {
            await writer.SendAsync(line, cancellationToken);
        }
        catch (Exception exception) when (exception is SocketException or OperationCanceledException)
        {
            // Gone already.
        }
    }
}
