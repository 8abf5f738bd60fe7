using Fleet.Contracts;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Control;

/// <summary>Checks a request against the guest's memory before anything is done.</summary>
internal sealed class ControlParser(GuestMemory memory)
{
    public GuestCommand Command(ControlRequest request, GuestOperation operation)
    {
        var bytes = operation is GuestOperation.Fill or GuestOperation.Checksum ? Bytes(request, sizeof(uint)) : sizeof(uint);
        var address = Address(request, bytes, sizeof(uint));
        var value = operation switch
        {
            GuestOperation.Store => Value(request),
            GuestOperation.Fill => request.Seed ?? throw Bad("seed is missing"),
            _ => 0u,
        };
        return new GuestCommand(operation, address, bytes, value);
    }

    public (ulong Address, ulong Bytes) Pages(ControlRequest request)
    {
        var bytes = Bytes(request, MemoryLayout.PageBytes);
        return (Address(request, bytes, MemoryLayout.PageBytes), bytes);
    }

    public (ulong Address, int Shift, string Class) MemoryError(ControlRequest request)
    {
        var shift = request.Shift ?? FrameMath.FrameShift;
        if (!FrameMath.IsPageShift(shift))
        {
            throw Bad("shift must be 12, 21 or 30");
        }

        var errorClass = request.Class ?? "unknown";
        if (errorClass is not ("srar" or "srao" or "ucna" or "unknown"))
        {
            throw Bad("class must be srar, srao, ucna or unknown");
        }

        // The reported address is that of the page. Real hardware can fail anywhere, the guest's program included.
        var page = Parse(request) & ~((1UL << shift) - 1);
        return memory.Find(page, 1UL << shift) is null ? throw OutOfRange() : (page, shift, errorClass);
    }

    private ulong Address(ControlRequest request, ulong bytes, ulong alignment)
    {
        var address = Parse(request);
        if (address % alignment != 0)
        {
            throw Bad($"gpa must be a multiple of {alignment}");
        }

        if (memory.Find(address, bytes) is null)
        {
            throw OutOfRange();
        }

        return address >= GuestLayout.ReservedEnd
            ? address
            : throw new ControlException(ControlException.Reserved, $"the first {GuestLayout.ReservedEnd} bytes hold the guest's own program");
    }

    private static ulong Parse(ControlRequest request) =>
        HexAddress.TryParse(request.Gpa, out var address) ? address : throw Bad("gpa must be a hex string such as 0x100000");

    private static ulong Bytes(ControlRequest request, ulong unit) =>
        request.Bytes is > 0 and var bytes && (ulong)bytes % unit == 0 ? (ulong)bytes : throw Bad($"bytes must be a multiple of {unit}");

    private static uint Value(ControlRequest request) =>
        HexAddress.TryParse(request.Value, out var value) && value <= uint.MaxValue
            ? (uint)value
            : throw Bad("value must be a hex string of at most 32 bits");

    private static ControlException Bad(string message) => new(ControlException.BadRequest, message);

    private static ControlException OutOfRange() => new(ControlException.OutOfRange, "the range is not within one region of guest RAM");
}
