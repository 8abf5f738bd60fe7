using System.Buffers.Binary;
using Fleet.Linux.Kvm;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Guest;

/// <summary>Puts the program into guest memory and the vCPU into flat 32-bit protected mode, machine checks enabled.</summary>
internal static class GuestBoot
{
    private const ushort CodeSelector = 8;
    private const ushort DataSelector = 16;
    private const int MachineCheckVector = 18;
    private const ulong Cr0ProtectedMode = 1;
    private const ulong Cr0ExtensionType = 1 << 4;
    private const ulong Cr4MachineCheck = 1 << 6;
    private const int DescriptorBytes = 8;

    public static void LoadProgram(GuestMemory memory, GuestProgram program)
    {
        // Null, then base 0, limit 4 GiB, 32-bit: code execute/read, data read/write; accessed bits set.
        Span<byte> gdt = stackalloc byte[3 * DescriptorBytes];
        gdt.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[CodeSelector..], 0x00cf_9b00_0000_ffff);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[DataSelector..], 0x00cf_9300_0000_ffff);

        // Only the machine-check gate (32-bit interrupt gate): any other exception is a defect and ends in a shutdown.
        Span<byte> idt = stackalloc byte[(MachineCheckVector + 1) * DescriptorBytes];
        idt.Clear();
        ulong handler = program.MachineCheckHandler;
        var gate = (handler & 0xffff) | ((ulong)CodeSelector << 16) | (0x8e00UL << 32) | ((handler >> 16) << 48);
        BinaryPrimitives.WriteUInt64LittleEndian(idt[(MachineCheckVector * DescriptorBytes)..], gate);

        memory.Write(GuestLayout.GlobalDescriptorTable, gdt);
        memory.Write(GuestLayout.InterruptDescriptorTable, idt);
        memory.Write(GuestLayout.Code, program.Code);
    }

    public static void SetRegisters(KvmVcpu vcpu, GuestProgram program)
    {
        var code = new KvmSegment { Limit = uint.MaxValue, Selector = CodeSelector, Type = 11, Present = 1, Db = 1, S = 1, G = 1 };
        var data = code with { Selector = DataSelector, Type = 3 };
        vcpu.SetSpecialRegisters(vcpu.GetSpecialRegisters() with
        {
            Cs = code,
            Ds = data,
            Es = data,
            Fs = data,
            Gs = data,
            Ss = data,
            Gdt = new KvmDtable { Base = GuestLayout.GlobalDescriptorTable, Limit = (3 * DescriptorBytes) - 1 },
            Idt = new KvmDtable { Base = GuestLayout.InterruptDescriptorTable, Limit = ((MachineCheckVector + 1) * DescriptorBytes) - 1 },
            Cr0 = Cr0ProtectedMode | Cr0ExtensionType,
            Cr4 = Cr4MachineCheck,
            Efer = 0,
        });

        // Bit 1 of the flags is always set.
        vcpu.SetRegisters(new KvmRegs { Rip = program.Entry, Rsp = GuestLayout.StackTop, Rflags = 2 });
    }
}
