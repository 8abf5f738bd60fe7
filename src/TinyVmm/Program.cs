using System.CommandLine;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Fleet.Contracts;
using Fleet.Linux;
using Fleet.TinyVmm;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Memory;

var vm = new Option<string>("--vm") { Description = "Id of the VM, as the control plane knows it.", Required = true };
var memory = new Option<string>("--memory")
{
    Description = "Guest RAM: a size (64M), or a layout of addresses and sizes (0x0:64M,0x100000000:1G).",
    DefaultValueFactory = _ => "64M",
};
var handoff = new Option<string?>("--handoff") { Description = "The host agent's Unix socket for this VM. Without it the VM runs alone." };
var control = new Option<string>("--control") { Description = "Unix socket to make, mode 0600, for commands to this VMM.", Required = true };

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

var root = new RootCommand("A small virtual machine monitor on /dev/kvm whose guest reports machine checks.") { vm, memory, handoff, control };
root.SetAction((parsed, _) => RunAsync(parsed.GetRequiredValue(vm), parsed.GetRequiredValue(memory), parsed.GetValue(handoff), parsed.GetRequiredValue(control)));

// The end of the process is this program's own affair: SIGTERM is a clean shutdown with exit code 0.
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = null });

static async Task<int> RunAsync(string vm, string memory, string? handoff, string control)
{
    var stop = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
    using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
    try
    {
        var layout = MemoryLayout.TryParse(memory, out var ranges, out var error) ? ranges : throw new ArgumentException(error, nameof(memory));
        await using var machine = new Machine(vm, layout, handoff, TimeProvider.System, line => Console.Error.WriteLine($"{vm}: {line}"));
        await using var server = new ControlServer(control, machine, TimeProvider.System);
        Console.WriteLine($"ready: vm {vm}, pid {Environment.ProcessId}, control {control}");
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
