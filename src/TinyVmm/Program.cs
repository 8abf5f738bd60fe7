using System.CommandLine;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Fleet.Contracts;
using Fleet.Linux;
using Fleet.TinyVmm;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;

var vm = new Option<string>("--vm") { Description = "Id of the VM, as the control plane knows it.", Required = true };
var memory = new Option<string>("--memory")
{
    Description = "Guest RAM: a size (64M), or a layout of addresses and sizes (0x0:64M,0x100000000:1G).",
    DefaultValueFactory = _ => "64M",
};
var handoff = new Option<string?>("--handoff") { Description = "The host agent's Unix socket for this VM. Without it the VM runs alone." };
var control = new Option<string>("--control") { Description = "Unix socket to make, mode 0600, for commands to this VMM.", Required = true };
var barrier = new Option<bool>("--barrier") { Description = "The guest runs only when the agent says so (needs --handoff)." };
var incoming = new Option<string?>("--incoming")
{
    Description = "Wait for the guest's RAM from another VMM: unix:/path or tcp:127.0.0.1:port (0: any). Implies --barrier.",
};
var backing = new Option<MemoryBacking>("--backing")
{
    Description = "What guest RAM is made of: memfd, anonymous, or hugetlb (2M pages, which must be free: vm.nr_hugepages).",
    DefaultValueFactory = _ => MemoryBacking.Memfd,
};
var unprotected = new Option<bool>("--unprotected")
{
    Description = "With --incoming, no barrier: the guest is resumed by the control socket, holes and all. Only to show what then happens.",
};
var vcpu = new Option<string>("--vcpu")
{
    Description = "What runs the guest: kvm, or software, which needs no /dev/kvm.",
    DefaultValueFactory = _ => KvmVirtualCpu.KindName,
};
vcpu.AcceptOnlyFromAmong(KvmVirtualCpu.KindName, SoftwareVirtualCpu.KindName);

vm.Validators.Add(result =>
{
    if (!ResourceId.IsValid(result.GetValueOrDefault<string>()))
    {
        result.AddError("--vm: letters, digits, dot, underscore and hyphen, at most 64, the first a letter or digit");
    }
});
memory.Validators.Add(result =>
{
    if (!MemoryLayout.TryParse(result.GetValueOrDefault<string>() ?? string.Empty, out _, out var error))
    {
        result.AddError($"--memory: {error}");
    }
});

backing.Validators.Add(result =>
{
    if (result.GetValueOrDefault<MemoryBacking>() == MemoryBacking.Hugetlb
        && MemoryLayout.TryParse(result.GetValue(memory) ?? string.Empty, out var layout, out _) && MemoryLayout.CheckHuge(layout) is { } error)
    {
        result.AddError($"--memory: {error}");
    }
});

incoming.Validators.Add(result =>
{
    if (result.GetValueOrDefault<string?>() is { } text && !MigrationEndpoint.TryParse(text, out _))
    {
        result.AddError("--incoming: unix: and an absolute path of at most 107 bytes, or tcp: with a loopback address and a port");
    }
});

var root = new RootCommand("A small virtual machine monitor whose guest reports machine checks.") { vm, memory, handoff, control, barrier, incoming, unprotected, backing, vcpu };
root.SetAction((parsed, _) => RunAsync(
    new MachineOptions(
        parsed.GetRequiredValue(vm),
        MemoryLayout.TryParse(parsed.GetRequiredValue(memory), out var layout, out var error) ? layout : throw new ArgumentException(error),
        parsed.GetValue(handoff),
        parsed.GetValue(barrier),
        MigrationEndpoint.TryParse(parsed.GetValue(incoming), out var endpoint) ? endpoint : null,
        parsed.GetRequiredValue(vcpu),
        Unprotected: parsed.GetValue(unprotected),
        Backing: parsed.GetValue(backing)),
    parsed.GetRequiredValue(control)));

// The end of the process is this program's own affair: SIGTERM is a clean shutdown with exit code 0.
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = null });

static async Task<int> RunAsync(MachineOptions options, string control)
{
    var stop = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
    using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
    try
    {
        await using var machine = new Machine(options, TimeProvider.System, line => Console.Error.WriteLine($"{options.Vm}: {line}"));
        await using var server = new ControlServer(control, machine, TimeProvider.System);
        Console.WriteLine($"ready: vm {options.Vm}, pid {Environment.ProcessId}, control {control}{(machine.IncomingAddress is { } address ? $", incoming {address}" : null)}");
        await stop.Task;
        return 0;
    }
    catch (Exception exception) when (exception is LinuxException or SocketException or NotSupportedException or IOException or UnauthorizedAccessException or ArgumentException)
    {
        await Console.Error.WriteLineAsync($"tinyvmm: {SetupAdvice.For(exception)}");
        return 1;
    }

    void Stop(PosixSignalContext context)
    {
        context.Cancel = true;
        stop.TrySetResult();
    }
}
