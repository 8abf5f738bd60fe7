using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;

namespace Fleet.HostAgent.Attach;

/// <summary>What a handoff says of a migration.</summary>
public static class HandoffIncoming
{
    /// <summary>
    /// The migration that a new VMM process is bound to: one each, for good, and never a process that may have run a guest
    /// (GATE, "preparing"). Null for a VMM that is not there to receive.
    /// </summary>
    /// <exception cref="HandoffRejectedException">It waits for a stream that nobody announced.</exception>
    public static string? MigrationOf(HandoffMessage message, DesiredVm desired, string host)
    {
        if (message.State is not (VmmStates.Incoming or VmmStates.Loaded))
        {
            return null;
        }

        return desired.Migration is { } migration && migration.TargetHost == host
            ? migration.Id
            : throw new HandoffRejectedException("no-migration", "the VMM waits for a stream, but no migration to this host is under way; it hands over again later");
    }

    /// <summary>A seal names where the stream ended, and the control plane takes only a VMM instance there; holes are ranges.</summary>
    /// <exception cref="HandoffRejectedException">The VMM named something else.</exception>
    public static void RequireSound(string? streamTarget, IReadOnlyList<HandoffFrames>? undelivered, string code)
    {
        if (undelivered?.Any(range => range is null || range.Start < 0 || range.End < range.Start) == true)
        {
            throw new HandoffRejectedException(code, "undelivered must be ranges of frames");
        }

        if (streamTarget is not null && !VmmInstanceText.IsValid(streamTarget))
        {
            throw new HandoffRejectedException(code, "streamTarget is not a VMM instance (bootId:pid:startTime)");
        }
    }

    /// <summary>Adds the holes that the stream left to what is poisoned. Call with the entry's gate held: memory errors are added there too.</summary>
    public static void TakeHoles(Attachment attachment)
    {
        if (attachment.IncomingFor is not null && attachment.Channel is { } channel)
        {
            attachment.Undelivered = attachment.Undelivered.Union(channel.Holes);
        }
    }
}
