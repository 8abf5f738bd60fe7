using Fleet.Linux.Kvm;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>
/// How a guest without paging reaches RAM above 4 GiB: a second memory slot, in the device hole, shows up to 2 MiB of it (bank
/// switching, as old machines did). The slot maps the same host pages, so a trap on them holds for it too; addresses are
/// translated back, so that events and machine checks name the true guest physical address.
/// </summary>
/// <remarks>
/// Page tables of the guest would be the ordinary way. The paravirtual KVM this must also run on shuts the guest down at the
/// first instruction with CR0.PG set, with PAE as with PSE.
/// </remarks>
internal sealed class HighMemoryWindow(KvmVm vm, GuestMemory memory, uint slot)
{
    public const ulong Base = GuestLayout.DeviceHole;
    public const ulong Bytes = 2 << 20;

    private ulong _target;
    private ulong _length;

    /// <summary>The largest piece from an address on that the guest can reach at once.</summary>
    public static ulong Reach(ulong guestPhysicalAddress, ulong bytes) =>
        guestPhysicalAddress < GuestLayout.DeviceHole ? bytes : Math.Min(bytes, Bytes - (guestPhysicalAddress % Bytes));

    /// <summary>Makes an address of RAM reachable and says where the guest sees it. The vCPU must be out of the guest.</summary>
    public uint Map(ulong guestPhysicalAddress)
    {
        if (guestPhysicalAddress < GuestLayout.DeviceHole)
        {
            return (uint)guestPhysicalAddress;
        }

        var region = memory.Find(guestPhysicalAddress) ?? throw new ArgumentOutOfRangeException(nameof(guestPhysicalAddress));
        var target = Math.Max(guestPhysicalAddress - (guestPhysicalAddress % Bytes), region.Range.GuestPhysicalAddress);
        if (_length == 0 || target != _target)
        {
            // A slot cannot be moved to other host memory: it is removed and made anew.
            if (_length != 0)
            {
                vm.SetMemoryRegion(slot, Base, 0, 0);
                _length = 0;
            }

            var length = Math.Min(Bytes - (target % Bytes), region.Range.End - target);
            vm.SetMemoryRegion(slot, Base, length, region.HostVirtualAddress + (target - region.Range.GuestPhysicalAddress));
            (_target, _length) = (target, length);
        }

        return (uint)(Base + (guestPhysicalAddress - _target));
    }

    /// <summary>The true address of one that the guest used.</summary>
    public ulong ToGuestPhysical(ulong address) =>
        address >= Base && address - Base < _length ? _target + (address - Base) : address;
}
