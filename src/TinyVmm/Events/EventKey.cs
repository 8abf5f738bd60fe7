using Fleet.Contracts;
using Fleet.Contracts.Handoff;

namespace Fleet.TinyVmm.Events;

/// <summary>Events that differ in nothing else are one event with a count.</summary>
/// <param name="Page">Guest frame number.</param>
/// <param name="Detail">Access of a machine check, or class and size of a failed page.</param>
internal readonly record struct EventKey(string Type, long Page, string Detail)
{
    public static EventKey Of(VmmEvent e, ulong guestPhysicalAddress) =>
        new(e.Type, FrameMath.FrameOf(guestPhysicalAddress), e.Access ?? FormattableString.Invariant($"{e.Class}/{e.Shift}"));
}
