using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.Linux.Tracing;

public enum PageAccess
{
    Read,
    Write,
    Fetch,
}

/// <summary>
/// A vCPU's access that the second-stage page tables could not translate (tracepoint kvm:kvm_page_fault). Where in the guest's program it was
/// (rip) is the guest's business: it is neither kept nor told.
/// </summary>
/// <param name="Vcpu">Null on kernels before 6.2.</param>
/// <param name="Address">Guest physical.</param>
/// <param name="ErrorCode">As the processor gives it; see <see cref="Access"/>.</param>
public sealed partial record KvmPageFaultEvent(int? Vcpu, ulong Address, ulong ErrorCode)
{
    public static readonly TraceEvent Name = new("kvm", "kvm_page_fault");
    public const string AddressField = "fault_address";

    /// <summary>Kind of the access. AMD reports a page-fault error code, Intel the exit qualification of an EPT violation.</summary>
    /// <param name="isIntel">The vendor of this host's processors.</param>
    public PageAccess Access(bool isIntel) =>
        (ErrorCode & 2) != 0 ? PageAccess.Write
        : (ErrorCode & (isIntel ? 4UL : 16UL)) != 0 ? PageAccess.Fetch
        : PageAccess.Read;

    /// <param name="fields"><c>vcpu 0 rip 0x… address 0x… error_code 0x…</c>; before 6.2 without vcpu and rip.</param>
    public static KvmPageFaultEvent? Parse(string fields)
    {
        var match = Pattern().Match(fields);
        return match.Success
            && ulong.TryParse(match.Groups[2].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var address)
            && ulong.TryParse(match.Groups[3].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code)
            ? new KvmPageFaultEvent(
                int.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var vcpu) ? vcpu : null, address, code)
            : null;
    }

    [GeneratedRegex(@"\A(?:vcpu (\d+) rip \S+ )?address (?:0x)?([0-9a-fA-F]+) error_code (?:0x)?([0-9a-fA-F]+)\s*\z", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}

/// <summary>A fault of a thread in user mode (tracepoint exceptions:page_fault_user, x86). System calls on the page do not show here.</summary>
/// <param name="Address">Virtual, of the thread's process.</param>
/// <param name="ErrorCode">Of the page fault: bit 1 write, bit 4 fetch.</param>
public sealed partial record UserPageFaultEvent(ulong Address, ulong ErrorCode)
{
    public static readonly TraceEvent Name = new("exceptions", "page_fault_user");
    public const string AddressField = "address";

    public PageAccess Access => (ErrorCode & 2) != 0 ? PageAccess.Write : (ErrorCode & 16) != 0 ? PageAccess.Fetch : PageAccess.Read;

    /// <param name="fields"><c>address=0x… ip=… error_code=0x…</c>.</param>
    public static UserPageFaultEvent? Parse(string fields)
    {
        var match = Pattern().Match(fields);
        return match.Success
            && ulong.TryParse(match.Groups[1].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var address)
            && ulong.TryParse(match.Groups[2].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code)
            ? new UserPageFaultEvent(address, code)
            : null;
    }

    [GeneratedRegex(@"\Aaddress=0x([0-9a-fA-F]+) ip=\S+ error_code=0x([0-9a-fA-F]+)\s*\z", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}
