using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Vms;

internal static class VmValidator
{
    private const int MaximumRegions = 64;
    private const int MaximumPath = 1024;
    private const ulong AddressSpace = (ulong)(FrameMath.MaximumFrame + 1) << FrameMath.FrameShift;

    public static Problem? Validate(VmRequest request)
    {
        var errors = new ValidationErrors();
        if (request.Host is not null && !ResourceId.IsValid(request.Host))
        {
            errors.Add("$.host", $"An id of the form {ResourceId.Pattern}, or null.");
        }

        CheckMemory(request.Memory, "$.memory", errors);
        CheckAttach(request.Attach, "$.attach", errors);
        return errors.ToProblem();
    }

    public static void CheckMemory(IReadOnlyList<MemoryRegion> memory, string path, ValidationErrors errors)
    {
        if (memory.Count is 0 or > MaximumRegions)
        {
            errors.Add(path, $"1 to {MaximumRegions} regions.");
            return;
        }

        var valid = new List<(ulong Start, ulong End, int Index)>();
        for (var index = 0; index < memory.Count; index++)
        {
            if (CheckRegion(memory[index], $"{path}[{index}]", errors) is var (start, end))
            {
                valid.Add((start, end, index));
            }
        }

        valid.Sort();
        foreach (var (first, second) in valid.Zip(valid.Skip(1)).Where(pair => pair.First.End > pair.Second.Start))
        {
            errors.Add($"{path}[{second.Index}]", $"Overlaps memory[{first.Index}].");
        }
    }

    private static (ulong Start, ulong End)? CheckRegion(MemoryRegion? region, string path, ValidationErrors errors)
    {
        if (region is null)
        {
            errors.Add(path, "Must not be null.");
            return null;
        }

        if (region.PageBytes is not (4096 or 2097152 or 1073741824))
        {
            errors.Add($"{path}.pageBytes", "4096, 2097152 or 1073741824.");
            return null;
        }

        var parsed = HexAddress.TryParse(region.GuestPhysicalAddress, out var start);
        var aligned = parsed && start % (ulong)region.PageBytes == 0;
        if (!aligned)
        {
            errors.Add($"{path}.guestPhysicalAddress", "A hex string such as 0x100000000, a multiple of pageBytes.");
        }

        if (region.Bytes <= 0 || region.Bytes % region.PageBytes != 0)
        {
            errors.Add($"{path}.bytes", "Above zero, and a multiple of pageBytes.");
            return null;
        }

        if (aligned && (start >= AddressSpace || (ulong)region.Bytes > AddressSpace - start))
        {
            errors.Add(path, "Ends beyond 52 bits of guest physical address.");
            return null;
        }

        return aligned ? (start, start + (ulong)region.Bytes) : null;
    }

    public static void CheckAttach(VmAttach attach, string path, ValidationErrors errors)
    {
        if (attach.Kind is not (AttachKinds.Handoff or AttachKinds.Qemu or AttachKinds.Firecracker))
        {
            errors.Add($"{path}.kind", "handoff, qemu or firecracker.");
            return;
        }

        CheckPath(attach.QmpSocket, $"{path}.qmpSocket", attach.Kind == AttachKinds.Qemu, attach.Kind == AttachKinds.Qemu, errors);
        CheckPath(attach.MemoryFile, $"{path}.memoryFile", attach.Kind == AttachKinds.Firecracker, attach.Kind == AttachKinds.Firecracker, errors);
        CheckPath(attach.Socket, $"{path}.socket", attach.Kind != AttachKinds.Qemu, false, errors);
    }

    private static void CheckPath(string? text, string path, bool allowed, bool required, ValidationErrors errors)
    {
        if (text is null)
        {
            if (required)
            {
                errors.Add(path, "Needed for this kind.");
            }
        }
        else if (!allowed)
        {
            errors.Add(path, "Not for this kind.");
        }
        else if (!text.StartsWith('/') || text.Length > MaximumPath || text.Any(char.IsControl))
        {
            errors.Add(path, $"An absolute path of at most {MaximumPath} characters, no control characters.");
        }
    }
}
